"""Evidence that a cut changed nothing else: cut against silenced, and the order of units that
must not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.rebuild import named_tensors, rebuild
from pipeline.channels.surgery import cut, mask
from pipeline.errors import Hint, Key, Refused
from stages.trace.capture.calls import tensors_of
from stages.trace.capture.model_state import preserved, set_training
from stages.trace.capture.quiet import quiet
from stages.trace.capture.refusals import what_stopped
from stages.trace.check.copies import as_dtype

_FREEZE = Hint("freeze the groups concerned with ", Key("trace.freeze"))


@dataclass(frozen=True)
class Proof:
    """Largest difference between two outputs in float64, absolute and relative to the largest
    reference output.
    """

    max_abs: float
    relative: float


class DoesNotRun(Refused):
    """The network does not run on these inputs, cut or not."""


def prove(
    model: nn.Module,
    graph: ChannelGraph,
    plan: ChannelPlan,
    inputs: Sequence[Any],
    *,
    dtype: torch.dtype = torch.float64,
) -> Proof:
    """Run the cut and the silenced network in eval mode on `inputs`.

    Args:
        dtype: what both compute in; float32's round-off would hide a small mistake.

    Raises:
        DoesNotRun: the whole network does not run on `inputs` in that precision.
        Refused: the cut network does not run, or its output has another shape, or one of the
            outputs is not finite.
    """
    wide = _converted(model, dtype)
    one, reference = (lambda: cut(wide, graph, plan)), (lambda: mask(wide, graph, plan))
    return _difference(model, one, reference, _Run(tuple(inputs), dtype), "cut")


def prove_order(
    model: nn.Module, graph: ChannelGraph, inputs: Sequence[Any], *, seed: int = 0
) -> Proof:
    """Shuffle the units of every prunable group consistently; the output must stay. Needs no
    reference answer.
    """
    wide = _converted(model, torch.float64)
    one, reference = (lambda: permuted(wide, graph, seed=seed)), (lambda: rebuild(wide, {}, ()))
    return _difference(model, one, reference, _Run(tuple(inputs), torch.float64), "shuffled")


def permuted(model: nn.Module, graph: ChannelGraph, *, seed: int = 0) -> nn.Module:
    """A copy with the units of every prunable group in random order."""
    generator = torch.Generator().manual_seed(seed)
    tensors = named_tensors(model)
    index: dict[tuple[str, int], torch.Tensor] = {}
    for group in graph.prunable:
        order = torch.randperm(group.size, generator=generator)
        for _, name, dim, indices in graph.slices[group.id]:
            slots = torch.from_numpy(indices)
            target = index.setdefault((name, dim), torch.arange(tensors[name].shape[dim]))
            target[slots] = slots[order]
    changed: dict[str, torch.Tensor] = {}
    for (name, dim), order in index.items():
        changed[name] = changed.get(name, tensors[name]).detach().index_select(dim, order)
    return rebuild(model, changed, ())


def _converted(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy in another precision."""
    tensors = named_tensors(model).items()
    return rebuild(
        model, {n: t.detach().to(dtype) for n, t in tensors if t.is_floating_point()}, ()
    )


def _difference(
    model: nn.Module,
    one: Callable[[], nn.Module],
    reference: Callable[[], nn.Module],
    run: _Run,
    what: str,
) -> Proof:
    """Networks are built one after the other, so that only one lives at a time.

    What they share with `model`, such as the caches of its classes, is put back.
    """
    with quiet(), preserved(model):
        try:
            expected = run(reference())
        except _Stopped as error:
            raise DoesNotRun(f"the network does not run on these inputs, {error}") from None
        try:
            found = run(one())
        except _Stopped as error:
            raise Refused(f"the {what} network does not run, {error}", hint=_FREEZE) from None
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
        shapes, wanted = _shapes(found), _shapes(expected)
        message = f"the {what} network's output has shape {shapes}, not {wanted}"
        raise Refused(message, hint=_FREEZE)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in [*found, *expected]):
        raise Refused(
            f"the output of the {what} network, or of its reference, is not finite",
            hint="check the weights and the scale of the images",
        )
    return _largest(found, expected)


def _largest(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> Proof:
    worst = relative = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.numel():
            difference, scale = float((a - b).abs().max()), float(b.abs().max())
            worst = max(worst, difference)
            relative = max(relative, difference / scale if scale else difference)
    return Proof(worst, relative)


def _shapes(tensors: Sequence[torch.Tensor]) -> str:
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors)


class _Stopped(Exception):
    """A run ended early; the text says where and why."""


@dataclass(frozen=True)
class _Run:
    """Outputs of a network on inputs in one precision; the inputs stay as they are."""

    inputs: tuple[Any, ...]
    dtype: torch.dtype

    def __call__(self, network: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(0)
        try:
            set_training(network, False)
            with torch.no_grad():
                outputs = tensors_of(network(*as_dtype(self.inputs, self.dtype)))
        except Exception as error:
            raise _Stopped(what_stopped(network, error)) from error
        return [tensor if tensor.is_complex() else tensor.double() for tensor in outputs]

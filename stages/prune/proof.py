"""Evidence that a cut changed nothing else: cut against silenced, and the order of units that
must not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.rebuild import named_tensors, rebuild
from pipeline.channels.surgery import mask, prune
from pipeline.errors import Hint, Key, Refused
from pipeline.modes import mode


@dataclass(frozen=True)
class Proof:
    """Largest difference between two outputs in float64, absolute and relative to the largest
    reference output.
    """

    max_abs: float
    relative: float


def prove(model: nn.Module, graph: ChannelGraph, plan: ChannelPlan, inputs: Sequence[Any]) -> Proof:
    """Run the cut and the silenced network in eval mode and float64 on `inputs`.

    Raises:
        Refused: the cut network does not run, or its output has another shape, or one of the
            outputs is not finite.
    """
    wide = rebuild(model, {}, ()).double()  # float32's round-off would hide a small mistake
    return _difference(
        lambda: prune(wide, graph, plan), lambda: mask(wide, graph, plan), inputs, "cut"
    )


def prove_order(
    model: nn.Module, graph: ChannelGraph, inputs: Sequence[Any], *, seed: int = 0
) -> Proof:
    """Shuffle the units of every prunable group consistently; the output must stay. Needs no
    reference answer.
    """
    wide = rebuild(model, {}, ()).double()
    return _difference(lambda: permuted(wide, graph, seed=seed), lambda: wide, inputs, "shuffled")


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


def _difference(
    one: Callable[[], nn.Module],
    reference: Callable[[], nn.Module],
    inputs: Sequence[Any],
    what: str,
) -> Proof:
    """Networks are built one after the other, so that only one lives at a time."""
    inputs = [
        item.double() if torch.is_tensor(item) and item.is_floating_point() else item
        for item in inputs
    ]
    expected = _outputs(reference(), inputs)
    network = one()
    try:
        found = _outputs(network, inputs)
    except Exception as error:
        raise Refused(
            f"the {what} network does not run: {error}",
            hint=Hint("freeze the groups concerned with ", Key("trace.freeze")),
        ) from error
    worst = relative = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            raise Refused(
                f"the {what} network's output has shape {tuple(a.shape)}, not {tuple(b.shape)}"
            )
        if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise Refused(
                f"the output of the {what} network, or of its reference, is not finite",
                hint="check the weights and the scale of the images",
            )
        difference, scale = float((a - b).abs().max()), float(b.abs().max())
        worst = max(worst, difference)
        # all zeros have no scale
        relative = max(relative, difference / scale if scale else difference)
    return Proof(worst, relative)


def _outputs(network: nn.Module, inputs: Sequence[Any]) -> list[torch.Tensor]:
    with torch.no_grad(), mode(network, False):
        leaves = tree_leaves(network(*inputs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

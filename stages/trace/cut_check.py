"""Does forward follow a cut? Sizes may be hard-coded, numbers computed from a width: the network is
cut and run.

It runs on tensors without values while its calls are recorded again. They must be the calls of the
whole network, with the same numbers: `x / x.shape[1]` is a division by 8 there and by 4 here. Where
channels themselves pass a doubtful size, a wrong cut may keep all shapes, so the outputs are
compared with the silenced network's as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.rebuild import named_tensors, rebuild
from pipeline.channels.surgery import mask, prune
from pipeline.modes import mode
from stages.trace.capture.calls import Call, Capture, Ground, Ref, flatten
from stages.trace.capture.dispatch_capture import by_dispatch
from stages.trace.capture.model_state import preserved
from stages.trace.capture.source_lines import line_of_error, short_path
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.labels import Settled
from stages.trace.propagate.readings import Reading


def doubtful(state: Pass, settled: Settled, graph: ChannelGraph) -> dict[str, set[str]]:
    """{source line: ids of prunable groups whose units pass a doubtful size there}, in the
    order of the trace.
    """
    owner = np.full(len(settled.roots), -1, dtype=np.int64)
    groups = graph.prunable
    for number, group in enumerate(groups):
        for name, dim, indices in group.members:
            labels = state.labels.slots[name, dim][list(indices)]
            owner[settled.roots[labels[labels > 0]]] = number
    found: dict[str, set[str]] = {}
    for line, vectors in state.labels.unproven.items():
        labels = np.concatenate(vectors)
        numbers = np.unique(owner[settled.roots[labels[labels > 0]]])
        ids = {groups[number].id for number in numbers.tolist() if number >= 0}
        if ids and state.readings.get(line) is not Reading.FIXED:
            found[line] = ids
    return found


@dataclass(frozen=True)
class CutCheck:
    """Cuts half of some groups of one traced network and reports what goes wrong."""

    model: nn.Module
    graph: ChannelGraph
    inputs: Sequence[Any]
    captured: Capture
    outputs: bool

    def problem(self, ids: Iterable[str]) -> str:
        """Why the network without half of these groups is not the silenced one; "" when it is."""
        keep = _half(self.graph, ids)
        if not keep:
            return ""
        try:
            wrong = self._run_empty(keep)
            return self._compare(keep) if self.outputs and not wrong else wrong
        except Exception as error:
            return _place(error)

    def culprits(self, ids: Sequence[str]) -> dict[str, str]:
        """The groups that alone, or only together, do not survive a cut: {group id: problem}."""
        problem = self.problem(ids)
        if not problem or len(ids) == 1:
            return dict.fromkeys(ids, problem) if problem else {}
        middle = len(ids) // 2
        found = {**self.culprits(ids[:middle]), **self.culprits(ids[middle:])}
        return found or dict.fromkeys(ids, problem)

    def _run_empty(self, keep: dict[str, tuple[int, ...]]) -> str:
        """One forward pass of the cut network without values, compared call by call where calls
        can be recorded.
        """
        ground = self.captured.ground
        if ground is not Ground.EXPORT:
            device = "meta" if ground is Ground.META else None
            small = _hollow(self.model, self.graph, keep, device)
            return _difference(self.captured, by_dispatch(small, tuple(self.inputs), ground=ground))
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with preserved(self.model), torch.no_grad(), fake:
            small = _hollow(self.model, self.graph, keep, None)
            small(
                *tree_map(
                    lambda v: fake.from_tensor(v, static_shapes=True) if torch.is_tensor(v) else v,
                    self.inputs,
                )
            )
        return ""

    def _compare(self, keep: dict[str, tuple[int, ...]]) -> str:
        noise = torch.Generator().manual_seed(0)
        inputs = tree_map(lambda value: _noise(value, noise), tuple(self.inputs))
        with torch.no_grad(), preserved(self.model), mode(self.model, False):
            plan = ChannelPlan(keep)
            small = prune(self.model, self.graph, plan)(*inputs)
            reference = mask(self.model, self.graph, plan)(*inputs)
        pairs = zip(tensors_of(small), tensors_of(reference), strict=True)
        return (
            ""
            if all(_close(a, b) for a, b in pairs)
            else "the output of the cut network is another one"
        )


def tensors_of(output: Any) -> list[torch.Tensor]:
    """All tensors of a nested model output."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _half(graph: ChannelGraph, ids: Iterable[str]) -> dict[str, tuple[int, ...]]:
    generator = np.random.default_rng(0)
    keep = {}
    for group_id in sorted(ids):
        size = graph[group_id].size
        kept = np.sort(generator.permutation(size)[: (size + 1) // 2])
        keep[group_id] = tuple(kept.tolist())
    return keep


def _hollow(
    model: nn.Module, graph: ChannelGraph, keep: dict[str, tuple[int, ...]], device: str | None
) -> nn.Module:
    """The cut network with tensors that nobody filled."""
    stored = named_tensors(model)
    shapes = {name: list(tensor.shape) for name, tensor in stored.items()}
    for (name, dim), gone in graph.removed_slices(keep).items():
        shapes[name][dim] -= len(gone)
    tensors = {
        name: torch.empty(shapes[name], dtype=tensor.dtype, device=device or tensor.device)
        for name, tensor in stored.items()
    }
    return rebuild(model, tensors, graph.widths_after(keep)).eval()


def _difference(whole: Capture, small: Capture) -> str:
    """The first call of the cut network that is not the whole network's, sizes aside; "" if
    there is none.
    """
    for one, other in zip(whole.calls, small.calls, strict=False):
        if (one.target, one.line) != (other.target, other.line):
            return f"{other.line}: the cut network takes another path, {other.name} for {one.name}"
        for before, after in zip(_numbers(one), _numbers(other), strict=False):
            if before != after:
                return (
                    f"{other.line}: {one.name} uses a number that depends on the width, "
                    f"{before} becomes {after}"
                )
    if len(whole.calls) != len(small.calls):
        return "the cut network takes another path"
    constants, others = (
        [source for source in c.inputs if source.kind == "constant"] for c in (whole, small)
    )
    for before, after in zip(constants, others, strict=False):
        if before.numbers != after.numbers:
            readers = (
                call.line
                for call in small.calls
                if Ref(after.index) in flatten((call.args, call.kwargs))
            )
            line, change = next(readers, after.name), f"{before.numbers} becomes {after.numbers}"
            return f"{line}: a constant tensor depends on the width, {change}"
    return ""


def _numbers(call: Call) -> list[Any]:
    """Numbers that take part in arithmetic; integers by schema are sizes, dimensions and
    strides.
    """
    if not isinstance(call.target, torch._ops.OpOverload):
        return []
    found = []
    for position, argument in enumerate(call.target._schema.arguments):
        given = call.args[position] if position < len(call.args) else call.kwargs.get(argument.name)
        values = given if isinstance(given, (list, tuple)) else [given]
        sizes = "int" in str(argument.type)
        found += [v for v in values if isinstance(v, float) or (type(v) is int and not sizes)]
    return found


def _noise(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator).to(value)
    return value


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(other.detach().abs().max()) if other.numel() else 0.0
    tolerance = 1e-9 if one.dtype == torch.float64 else 1e-3
    return bool(((one - other).abs() <= tolerance * max(scale, 1e-12)).all())


def _place(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    frame = line_of_error(error)
    return text if frame is None else f"{short_path(frame.filename)}:{frame.lineno}: {text}"

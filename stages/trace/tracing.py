"""`trace`: capture, label, group; then settle the sizes that forward may have hard-coded."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph
from pipeline.errors import UsageError
from stages.trace.capture.calls import Capture
from stages.trace.capture.dispatch_capture import by_dispatch
from stages.trace.capture.forward import capture_forward
from stages.trace.capture.model_state import canonical_names
from stages.trace.cut_check import CutCheck, doubtful
from stages.trace.grouping import build
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.labelling import label
from stages.trace.propagate.labels import Settled
from stages.trace.propagate.readings import Reading

Inputs = torch.Tensor | tuple[Any, ...] | list[Any]


def trace(
    model: nn.Module, example_inputs: Inputs, *, open_statistics: bool = False
) -> ChannelGraph:
    """Find every set of channels that lives or dies together.

    The model runs in eval mode on fake tensors; weights, buffers, training mode and random state
    stay as they are.

    Args:
        model: any classifier torch.export accepts.
        example_inputs: one input, or a tuple of positional inputs, at the size of use.
        open_statistics: make channels below LayerNorm and GroupNorm(1, …) prunable although the
            statistics of the remaining channels then change; such groups have `exact=False`.

    Raises:
        UsageError: torch.export cannot take the model; the message names the line that stopped it.
    """
    inputs = (
        (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    )
    if not inputs:
        raise UsageError(
            "trace needs an example input", hint="pass a tensor of the shape the model is used with"
        )
    return _Tracing(model, inputs, open_statistics).graph().bind(model)


@dataclass
class _Tracing:
    """The search for readings of ambiguous sizes under which forward follows every cut."""

    model: nn.Module
    inputs: tuple[Any, ...]
    open_statistics: bool
    readings: dict[str, Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.captured: Capture = capture_forward(self.model, self.inputs)
        self.captures = [self.captured, *self._in_training()]
        self.names = canonical_names(self.model)
        first = self.inputs[0]
        self.batch = (
            max(first.shape[0], 1) if isinstance(first, torch.Tensor) and first.dim() else 1
        )

    def graph(self) -> ChannelGraph:
        """Settle how every ambiguous size is read, then freeze what still does not survive a cut.

        Each round labels the network under the current readings, cuts half of all prunable groups
        and runs the result. Take 4 channels that pass line 7, `y.view(b, 2, 2, h, w)`, where
        nothing tells which 2 belongs to the channels, or whether any does:

            round   line 7   units            the cut network
            1       INNER    {0, 2} {1, 3}    2 channels left: line 7 raises, so it is read weaker
            2       OUTER    {0, 1} {2, 3}    line 7 raises again
            3       FIXED    none             runs; the channels stay, with line 7 as the reason

        With `y.view(b, 2, c // 2, h, w)` round 1 holds, and `_read_otherwise` asks whether OUTER
        would open more. A failure that no line is suspected of, such as a width used as a number,
        is traced to its groups by halving (`_freeze_culprits`).
        """
        state, graph, settled = self._label(self.readings)
        while True:
            lines = doubtful(state, settled, graph)
            check = CutCheck(self.model, graph, self.inputs, self.captured, outputs=bool(lines))
            if check.problem([group.id for group in graph.prunable]):
                wrong = [line for line, ids in lines.items() if check.problem(ids)]
                if not wrong:
                    return self._freeze_culprits(check)
                self.readings.update(
                    {line: self.readings.get(line, Reading.INNER).weaker for line in wrong}
                )
            elif not self._read_otherwise(state, graph):
                return graph
            state, graph, settled = self._label(self.readings)

    def _in_training(self) -> list[Capture]:
        """A second capture where eval mode leaves parameters unused: auxiliary heads must
        follow a cut as well.
        """
        used = {source.name for source in self.captured.inputs}
        if all(name in used for name, _ in self.model.named_parameters()):
            return []
        with contextlib.suppress(Exception):
            return [by_dispatch(self.model, self.inputs, training=True)]
        return []

    def _label(self, readings: Mapping[str, Reading]) -> tuple[Pass, ChannelGraph, Settled]:
        state = label(self.model, self.captures, readings, self.open_statistics)
        graph, settled = build(state, self.captured.inputs, self.names, self.batch)
        return state, graph, settled

    def _read_otherwise(self, state: Pass, graph: ChannelGraph) -> bool:
        """Try the other reading of lines that split channels; keep the first that opens more
        units and holds.
        """
        for line in state.labels.split_lines:
            if line in self.readings:
                continue
            self.readings[line] = Reading.INNER
            readings = {**self.readings, line: Reading.OUTER}
            _, other, _ = self._label(readings)
            if _units(other) > _units(graph):
                check = CutCheck(self.model, other, self.inputs, self.captured, outputs=True)
                if not check.problem([group.id for group in other.prunable]):
                    self.readings = readings
                    return True
        return False

    def _freeze_culprits(self, check: CutCheck) -> ChannelGraph:
        """Groups that forward does not follow for a reason no label shows, such as a size read
        from another tensor.
        """
        graph = check.graph
        while culprits := check.culprits([group.id for group in graph.prunable]):
            reasons = {
                group: f"forward does not follow its cut: {problem}"
                for group, problem in culprits.items()
            }
            graph = graph.with_frozen(reasons)
            check = replace(check, graph=graph)
        return graph


def _units(graph: ChannelGraph) -> int:
    return sum(group.size for group in graph.prunable)

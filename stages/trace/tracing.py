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
from stages.trace import record
from stages.trace.capture import Capture, canonical_names, capture
from stages.trace.grouping import build
from stages.trace.labelling import Pass, label
from stages.trace.labels import Settled
from stages.trace.verify import Trial, doubtful

Inputs = torch.Tensor | tuple[Any, ...] | list[Any]

_NEXT = {"inner": "outer", "outer": "fixed"}


def trace(
    model: nn.Module, example_inputs: Inputs, *, open_statistics: bool = False
) -> ChannelGraph:
    """Find every set of channels that lives or dies together.

    The model runs in eval mode on fake tensors; weights, buffers, training mode and random state
    stay as they are.

    Args:
        model: any classifier torch.export accepts. example_inputs: one input, or a tuple of
        positional inputs, at the size of use. open_statistics: make channels below LayerNorm and
        GroupNorm(1, …) prunable although the statistics of
            the remaining channels then change; such groups have `exact=False`.

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
    choices: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.captured: Capture = capture(self.model, self.inputs)
        self.captures = [self.captured, *self._in_training()]
        self.names = canonical_names(self.model)
        first = self.inputs[0]
        self.batch = (
            max(first.shape[0], 1) if isinstance(first, torch.Tensor) and first.dim() else 1
        )

    def graph(self) -> ChannelGraph:
        state, graph, settled = self._label(self.choices)
        while True:
            lines = doubtful(state, settled, graph)
            trial = Trial(self.model, graph, self.inputs, self.captured, outputs=bool(lines))
            if trial.problem([group.id for group in graph.prunable]):
                wrong = [line for line, ids in lines.items() if trial.problem(ids)]
                if not wrong:
                    return self._freeze_culprits(trial)
                self.choices.update(
                    {line: _NEXT[self.choices.get(line, "inner")] for line in wrong}
                )
            elif not self._read_otherwise(state, graph):
                return graph
            state, graph, settled = self._label(self.choices)

    def _in_training(self) -> list[Capture]:
        """A second capture where eval mode leaves parameters unused: auxiliary heads must
        follow a cut as well.
        """
        used = {source.name for source in self.captured.inputs}
        if all(name in used for name, _ in self.model.named_parameters()):
            return []
        with contextlib.suppress(Exception):
            return [record.capture(self.model, self.inputs, light=True, training=True)]
        return []

    def _label(self, choices: Mapping[str, str]) -> tuple[Pass, ChannelGraph, Settled]:
        state = label(self.model, self.captures, choices, self.open_statistics)
        graph, settled = build(state, self.captured.inputs, self.names, self.batch)
        return state, graph, settled

    def _read_otherwise(self, state: Pass, graph: ChannelGraph) -> bool:
        """Try the other reading of lines that split channels; keep the first that opens more
        units and holds.
        """
        for line in state.labels.split_lines:
            if line in self.choices:
                continue
            self.choices[line] = "inner"
            choices = {**self.choices, line: "outer"}
            _, other, _ = self._label(choices)
            if _units(other) > _units(graph):
                trial = Trial(self.model, other, self.inputs, self.captured, outputs=True)
                if not trial.problem([group.id for group in other.prunable]):
                    self.choices = choices
                    return True
        return False

    def _freeze_culprits(self, trial: Trial) -> ChannelGraph:
        """Groups that forward does not follow for a reason no label shows, such as a size read
        from another tensor.
        """
        graph = trial.graph
        while culprits := trial.culprits([group.id for group in graph.prunable]):
            reasons = {
                group: f"forward does not follow its cut: {problem}"
                for group, problem in culprits.items()
            }
            graph = graph.with_frozen(reasons)
            trial = replace(trial, graph=graph)
        return graph


def _units(graph: ChannelGraph) -> int:
    return sum(group.size for group in graph.prunable)

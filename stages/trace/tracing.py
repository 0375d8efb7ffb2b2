"""`trace`: export, label, group; retry the lines whose sizes turn out to be hard-coded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError
from stages.trace.capture import canonical_names, capture
from stages.trace.graph import ChannelGraph
from stages.trace.grouping import build
from stages.trace.labelling import label
from stages.trace.verify import NEXT_CHOICE, doubtful, fits

Inputs = torch.Tensor | tuple[Any, ...] | list[Any]


def trace(model: nn.Module, example_inputs: Inputs, *, open_statistics: bool = False) -> ChannelGraph:
    """Find every set of channels that lives or dies together.

    The model runs in eval mode on fake tensors; weights, buffers, training mode and random state stay as they are.

    Args:
        model: any classifier torch.export accepts.
        example_inputs: one input, or a tuple of positional inputs, at the size of use.
        open_statistics: make channels below LayerNorm and GroupNorm(1, …) prunable although the statistics of
            the remaining channels then change; such groups have `exact=False`.

    Raises:
        UsageError: torch.export cannot take the model; the message names the line that stopped it.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    if not inputs:
        raise UsageError("trace needs an example input", hint="pass a tensor of the shape the model is used with")
    captured = capture(model, inputs)
    names = canonical_names(model)
    first = inputs[0]
    batch = first.shape[0] if isinstance(first, torch.Tensor) and first.dim() else 1
    choices: dict[str, str] = {}
    while True:
        state = label(model, [captured], choices, open_statistics)
        graph, settled = build(state, captured.inputs, names, max(batch, 1))
        lines = doubtful(state, settled, graph)
        if not lines or fits(model, graph, set().union(*lines.values()), inputs):
            return graph.bind(model)
        wrong = [line for line, ids in lines.items() if not fits(model, graph, ids, inputs)] or list(lines)
        choices.update({line: NEXT_CHOICE[choices.get(line, "inner")] for line in wrong})

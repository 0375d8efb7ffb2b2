"""`prune`: the cut that the library offers, compared with the silenced network before it is handed
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.errors import Refused, UsageError
from stages.prune.proof import DoesNotRun, Proof, prove
from stages.trace.check.copies import samples

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Round-off leaves 1e-12 in float64, and 1e-7 where forward itself computes in float32."""


def prune(
    model: nn.Module,
    graph: ChannelGraph,
    plan: ChannelPlan,
    *,
    check: bool = True,
    inputs: Sequence[Any] | None = None,
) -> nn.Module:
    """A new network without the channels that the plan drops; `model` stays as it is.

    Parameters and buffers are sliced, module attributes (`out_channels`, `groups`, `num_features`
    …) follow; training mode, requires_grad, shared modules and hooks are kept.

    Args:
        check: run the cut and the silenced network, in float64 if they do, and compare; False saves
            the time of two forward passes on small images.
        inputs: what both are run on; by default noise of the traced shapes, smaller where the
            network takes it.

    Raises:
        ArtifactError: plan and graph, or graph and model, do not belong together.
        Refused: the cut network is another function than the silenced one; says what differs.
        UsageError: the network does not run on noise, or on `inputs`.
    """
    small = cut(model, graph, plan)
    if check and not any(parameter.is_meta for parameter in model.parameters()):
        proof, dtype = _prove(model, graph, plan, inputs)
        exact = all(graph[group].exact for group in plan.keep)
        if exact and not proof.relative <= _TOLERANCES[dtype]:  # also where it is not a number
            raise Refused(
                f"the cut network differs from the silenced one by {proof.relative:.1e} of the "
                f"largest output, {_TOLERANCES[dtype]:.0e} is allowed",
                hint="trace this very network again; check=False cuts without the comparison",
            )
    return small


def _prove(
    model: nn.Module, graph: ChannelGraph, plan: ChannelPlan, inputs: Sequence[Any] | None
) -> tuple[Proof, torch.dtype]:
    """The proof on the first inputs, and in the first precision, that suit the network.

    Not all run in float64: a function that closes over the network runs the original's weights.
    """
    candidates = [tuple(inputs)] if inputs is not None else list(_noise(model, graph))
    problem = "the graph does not say what its inputs are"
    for dtype in _TOLERANCES:
        for candidate in candidates:
            try:
                return prove(model, graph, plan, candidate, dtype=dtype), dtype
            except DoesNotRun as error:
                problem = error.message
    what = "noise" if inputs is None else "these inputs"
    raise UsageError(
        f"the cut cannot be checked on {what}: {problem}",
        hint="pass inputs=, those of trace, or check=False",
    )


def _noise(model: nn.Module, graph: ChannelGraph) -> Iterator[tuple[Any, ...]]:
    """Inputs of the traced shapes, the cheapest first: a small batch of small images."""
    device = next((parameter.device for parameter in model.parameters()), None)
    few = tuple((*(min(size, 2) for size in shape[:1]), *shape[1:]) for shape in graph.inputs)
    for shapes in dict.fromkeys([few, graph.inputs]):
        if shapes:
            yield from samples(tuple(torch.zeros(shape, device=device) for shape in shapes))[:-1]

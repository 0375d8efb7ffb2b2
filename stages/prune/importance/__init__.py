"""How much each unit matters. A criterion scores parameter elements; the scores of a unit's slices are added up.

To add one: a file here with `elements(model, batches, seed) -> {parameter name: scores of its shape}`, and a line in
CRITERIA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from pipeline.errors import UsageError
from stages.prune.importance import bn_scale, l1, l2, random, taylor
from stages.trace.graph import ChannelGraph, ChannelGroup

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Elements = Callable[[nn.Module, Batches | None, int], Mapping[str, torch.Tensor]]

CRITERIA: dict[str, Elements] = {
    "l1": l1.elements,
    "l2": l2.elements,
    "bn_scale": bn_scale.elements,
    "taylor": taylor.elements,
    "random": random.elements,
}


def rank_channels(
    model: nn.Module, graph: ChannelGraph, criterion: str = "l2", batches: Batches | None = None, *, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Importance of every unit: {group id: (size,) float64}, larger is more important.

    The model's weights, statistics, gradients, training mode and torch's random state stay as they are.

    Args:
        criterion: a key of CRITERIA. `taylor` needs `batches` of (images, labels).
        seed: for `random` only.

    Raises:
        UsageError: unknown criterion, or `taylor` without batches.
    """
    if criterion not in CRITERIA:
        raise UsageError(f"unknown importance criterion {criterion!r}", hint=f"one of {', '.join(CRITERIA)}")
    elements = CRITERIA[criterion](model, batches, seed)
    sums: dict[tuple[str, int], torch.Tensor] = {}
    scores = {group.id: _of_group(graph, group, elements, sums) for group in graph.groups}
    missing = {group_id for group_id, score in scores.items() if score is None}
    fallback = rank_channels(model, graph, "l2") if missing and criterion != "l2" else {}
    result = {
        g: fallback.get(g, torch.zeros(graph[g].size, dtype=torch.float64)) if s is None else s
        for g, s in scores.items()
    }
    return {g: s.sqrt() for g, s in result.items()} if criterion == "l2" else result


def _of_group(
    graph: ChannelGraph,
    group: ChannelGroup,
    elements: Mapping[str, torch.Tensor],
    sums: dict[tuple[str, int], torch.Tensor],
) -> torch.Tensor | None:
    """Sum over all slices of each unit; None when the criterion scores none of them."""
    total = None
    for name, dim, table in graph.tables[group.id]:
        if name not in elements:
            continue
        if (name, dim) not in sums:
            sums[name, dim] = _along(elements[name], name, dim, sums)
        share = sums[name, dim][torch.from_numpy(table)].sum(1)
        total = share if total is None else total + share
    return total


def _along(scored: torch.Tensor, name: str, dim: int, sums: dict[tuple[str, int], torch.Tensor]) -> torch.Tensor:
    """Scores summed over every dimension but `dim`, float64 on the CPU; kernel positions are summed once a weight."""
    if scored.dim() > 2 and dim < 2:
        if (name, -1) not in sums:
            sums[name, -1] = scored.flatten(2).sum(2, dtype=torch.float64)
        scored = sums[name, -1]
    others = [d for d in range(scored.dim()) if d != dim]
    return (scored.sum(others, dtype=torch.float64) if others else scored.double()).cpu()

"""How much each unit matters. A criterion scores parameter elements; the scores of a unit's slices
are added up.

To add one: a file here with `elements(model, batches, seed) -> ({parameter name: tensor}, score)`,
where `score` is an element-wise function of those tensors, and a line in CRITERIA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph, ChannelGroup
from pipeline.errors import UsageError
from stages.prune.importance import bn_scale, l1, l2, random, taylor

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Score = Callable[[torch.Tensor], torch.Tensor]
Elements = Callable[[nn.Module, Batches | None, int], tuple[Mapping[str, torch.Tensor], Score]]
_BLOCK = (
    1 << 18
)  # elements that are scored at once: they stay in the processor's cache while they are summed

CRITERIA: dict[str, Elements] = {
    "l1": l1.elements,
    "l2": l2.elements,
    "bn_scale": bn_scale.elements,
    "taylor": taylor.elements,
    "random": random.elements,
}


def rank_channels(
    model: nn.Module,
    graph: ChannelGraph,
    criterion: str = "l2",
    batches: Batches | None = None,
    *,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Importance of every unit: {group id: (size,) float64}, larger is more important.

    The model's weights, statistics, gradients, training mode and torch's random state stay as they
    are.

    Args:
        criterion: a key of CRITERIA. `taylor` needs `batches` of (images, labels).
        seed: for `random` only.

    Raises:
        UsageError: unknown criterion, or `taylor` without batches.
    """
    if criterion not in CRITERIA:
        raise UsageError(
            f"unknown importance criterion {criterion!r}", hint=f"one of {', '.join(CRITERIA)}"
        )
    tensors, score = CRITERIA[criterion](model, batches, seed)
    sums: dict[tuple[str, int], torch.Tensor] = {}
    for name, dims in _read_along(graph).items():
        if name in tensors:
            sums.update(
                {
                    (name, dim): total
                    for dim, total in _sums(tensors[name].detach(), score, dims).items()
                }
            )
    scores = {group.id: _of_group(graph, group, sums) for group in graph.groups}
    missing = {group_id for group_id, of_units in scores.items() if of_units is None}
    fallback = rank_channels(model, graph, "l2") if missing and criterion != "l2" else {}
    result = {
        g: fallback.get(g, torch.zeros(graph[g].size, dtype=torch.float64)) if s is None else s
        for g, s in scores.items()
    }
    return {g: s.sqrt() for g, s in result.items()} if criterion == "l2" else result


def _of_group(
    graph: ChannelGraph, group: ChannelGroup, sums: Mapping[tuple[str, int], torch.Tensor]
) -> torch.Tensor | None:
    """Sum over all slices of each unit; None when the criterion scores none of them."""
    total = None
    for name, dim, table in graph.tables[group.id]:
        if (name, dim) not in sums:
            continue
        slices = sums[name, dim][torch.from_numpy(table)]
        share = slices[:, 0] if table.shape[1] == 1 else slices.sum(1)
        total = share if total is None else total + share
    return total


def _read_along(graph: ChannelGraph) -> dict[str, set[int]]:
    """{parameter: dimensions along which its slices belong to units}."""
    found: dict[str, set[int]] = {}
    for group in graph.groups:
        for name, dim, _ in group.members:
            found.setdefault(name, set()).add(dim)
    return found


def _sums(tensor: torch.Tensor, score: Score, dims: set[int]) -> dict[int, torch.Tensor]:
    """Scores summed over all dimensions but one, for each of `dims`: float64 on the CPU."""
    if tensor.dim() > 1 and dims <= {0, 1}:
        return _rows_and_columns(tensor, score)
    scored = score(tensor).double().cpu()
    others = {dim: [other for other in range(scored.dim()) if other != dim] for dim in dims}
    return {dim: scored.sum(beside) if beside else scored for dim, beside in others.items()}


def _rows_and_columns(weight: torch.Tensor, score: Score) -> dict[int, torch.Tensor]:
    """Both dimensions of a weight (out, in, …) from one pass: in float32 within blocks of rows,
    float64 beyond.
    """
    count = weight.shape[0]
    step = max(1, _BLOCK * count // max(weight.numel(), 1))
    rows, columns = [], torch.zeros(weight.shape[1:], dtype=torch.float64, device=weight.device)
    for block in weight.split(step):
        scored = score(block if block.dtype.itemsize >= 4 else block.float())
        rows.append(scored.flatten(1).sum(1))
        columns += scored.sum(0)
    columns = columns.flatten(1).sum(1) if columns.dim() > 1 else columns
    return {0: torch.cat(rows).double().cpu(), 1: columns.cpu()}

"""How much each unit matters: a criterion scores parameter elements, and the scores of all slices
that a unit owns are added up.

To add one: a file here with `score_units(model, graph, batches, seed)`, and a line in CRITERIA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.importance import weight_norms
from pipeline.errors import UsageError
from stages.prune.importance import bn_scale, l1, l2, random, taylor

Batches = Iterable[tuple[Tensor, Tensor]]
Criterion = Callable[[nn.Module, ChannelGraph, Batches | None, int], dict[str, Tensor]]
"""(model, graph, batches of images and labels, seed) -> {group id: (size,) float64 on the CPU};
groups it says nothing about are left out."""

CRITERIA: dict[str, Criterion] = {
    "l1": l1.score_units,
    "l2": l2.score_units,
    "bn_scale": bn_scale.score_units,
    "taylor": taylor.score_units,
    "random": random.score_units,
}


def rank_channels(
    model: nn.Module,
    graph: ChannelGraph,
    criterion: str = "l2",
    batches: Batches | None = None,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Importance of every unit: {group id: (size,) float64}, larger is more important.

    Groups that the criterion says nothing about are ranked by the L2 norm of their weights. The
    model's weights, statistics, gradients, training mode and torch's random state stay as they are.

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
    return completed(model, graph, CRITERIA[criterion](model, graph, batches, seed))


def completed(
    model: nn.Module, graph: ChannelGraph, scores: dict[str, Tensor]
) -> dict[str, Tensor]:
    """With the L2 norms of the weights for groups that have no scores."""
    if all(group.id in scores for group in graph.groups):
        return scores
    norms = weight_norms(model, graph.slices)
    return {group.id: scores.get(group.id, norms[group.id]) for group in graph.groups}

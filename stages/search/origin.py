"""Rounds: each cuts what the round before left, to its share of the budget, counted from the
original network.

A budget b of N rounds is shared out geometrically: after round k the network may cost b ** (k / N)
of the original, so that every round removes the same fraction of what is there. With b = 0.25 and
two rounds: 0.5, then 0.25.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from pipeline.config.schema import Budget, SearchConfig
from pipeline.data import Splits
from pipeline.errors import UsageError
from stages.prune import CostModel
from stages.search.budget import Projector
from stages.search.evaluate import Evaluator
from stages.search.setup import Setup, prepare
from stages.search.space import Space
from stages.trace import ChannelGraph

# of what is there: a round that the one before has left nothing to do still cuts this little
MOST = 0.99


@dataclass(frozen=True)
class Origin:
    """The network before any cut, which all numbers of all rounds are relative to.

    Attributes:
        number, rounds: this round, from 1, and how many there are.
        asked: what the network may cost after this round, as a fraction of the original.
        sizes: units of every prunable group of the original.
        costs: its MACs and parameters.
        latency: of the network this round starts from, as a fraction of the original's.
    """

    number: int
    rounds: int
    asked: float
    sizes: Mapping[str, int]
    costs: Mapping[str, int]
    latency: float = 1.0

    def share(self, budget: float) -> float:
        """What is left of `budget` after this round, as a fraction of the original."""
        return float(budget ** (self.number / self.rounds))


def begin_round(
    model: nn.Module,
    graph: ChannelGraph,
    splits: Splits,
    settings: SearchConfig,
    seed: int,
    *,
    original: ChannelGraph,
    number: int = 1,
    rounds: int = 1,
) -> tuple[Setup, Origin]:
    """The search of one round; for latency budgets, `in_time` puts the share in.

    Args:
        model, graph: the network this round starts from.
        original: graph of the network before any cut.
    Raises:
        UsageError: the budget cannot be met; the first round says so for all of them.
    """
    metric, budget = next((m, v) for m, v in settings.budget.model_dump().items() if v is not None)
    whole = CostModel(original)
    costs, now = {"macs": whole.macs(), "params": whole.params()}, CostModel(graph)
    sizes = {group.id: group.size for group in original.prunable}
    origin = Origin(number, rounds, budget, sizes, costs)
    if rounds == 1:
        return prepare(model, graph, splits, settings, seed), origin
    mine = settings
    if metric in costs:
        origin = replace(origin, asked=origin.share(budget))
        current = now.macs() if metric == "macs" else now.params()
        share = min(MOST, origin.asked * costs[metric] / current)
        mine = settings.model_copy(update={"budget": Budget(**{metric: share})})
    try:
        setup = prepare(model, graph, splits, mine, seed)
        if metric in costs and number == 1:
            Projector.fraction(setup.space, setup.costs[metric], budget)
        space = _floored(setup.space, original, settings)
        if metric in costs:
            projector = Projector.fraction(space, setup.costs[metric], setup.share)
        else:
            projector = replace(setup.projector, space=space)
    except UsageError as error:
        if number == 1:
            raise
        hint = "fewer rounds, a larger search.budget, or a lower search.align or search.min_keep"
        raise UsageError(f"round {number} of {rounds}: {error.message}", hint=hint) from None
    return replace(setup, settings=settings, projector=projector), origin


def _floored(space: Space, original: ChannelGraph, settings: SearchConfig) -> Space:
    """`search.min_keep` is a share of the original's channels, not of what earlier rounds left."""
    assert isinstance(settings.align, int)
    first = Space.from_graph(original, align=settings.align, min_keep=settings.min_keep)
    floors = dict(zip(first.ids, first.floors.tolist(), strict=True))
    least = np.array([floors.get(name, 0) for name in space.ids], dtype=np.int64)
    return replace(space, floors=np.minimum(np.maximum(space.floors, least), space.sizes))


def in_time(
    setup: Setup, origin: Origin, latency: float, base_seconds: float
) -> tuple[Setup, Origin]:
    """The same with a latency budget's share of this round.

    Args:
        latency: of the network this round starts from, as a fraction of the original's.
        base_seconds: the original's.
    Raises:
        UsageError: the budget in milliseconds asks for no less than the original takes.
    """
    budget = setup.share if setup.metric == "latency" else setup.share / (base_seconds * 1e3)
    if budget >= 1:
        takes = f"the base takes {base_seconds * 1e3:.3g} ms"
        raise UsageError(
            f"search.budget.{setup.metric}={setup.share:g} asks for nothing: {takes}",
            hint="--set search.budget.latency=0.5 halves it",
        )
    asked = origin.share(budget)
    share = min(MOST, asked / latency)
    return replace(setup, metric="latency", share=share), replace(
        origin, asked=asked, latency=latency
    )


def judge(evaluator: Evaluator, original: nn.Module) -> None:
    """Score candidates by their closeness to the original, not to what this round starts from."""
    evaluator.learn_from(original.eval())

"""From a network, its graph and images to everything that a search needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from pipeline.channels.costs import ProductCost
from pipeline.config.schema import SearchConfig
from pipeline.data import Images, Splits
from pipeline.errors import Refused, UsageError
from stages.prune import rank_channels
from stages.search.budget import Projector
from stages.search.evaluate import Evaluator, Ranking
from stages.search.space import Counts, Removal, Space
from stages.search.strategies import STRATEGIES, Problem, Strategy
from stages.trace import ChannelGraph

BATCH = 256
FINAL_IMAGES, FINAL_STEPS = 4, 2  # finalists are scored on up to so many times the images and steps


@dataclass(frozen=True)
class Setup:
    """One search, ready to run.

    Attributes:
        metric, share: the budget asked for, such as "macs" and 0.5. projector: onto that budget;
        for latency budgets, `stages.search.calibrate.calibrate` puts it in. costs: by metric, exact
        for any counts of the space.
    """

    settings: SearchConfig
    seed: int
    metric: str
    share: float
    projector: Projector
    costs: dict[str, ProductCost]
    importance: dict[str, torch.Tensor]
    evaluator: Evaluator
    search_images: Images

    @property
    def space(self) -> Space:
        return self.projector.space

    def strategy(self, name: str, *, trials: int, seed: int | None = None) -> Strategy:
        """A fresh strategy for this problem."""
        if name not in STRATEGIES:
            raise UsageError(
                f"unknown search strategy {name!r}", hint=f"one of {', '.join(STRATEGIES)}"
            )
        values = tuple(self.importance[group].double().numpy() for group in self.space.ids)
        return STRATEGIES[name](
            Problem(self.projector, values, self.seed if seed is None else seed, trials)
        )

    def cost(self, counts: Counts) -> dict[str, int]:
        """Exact MACs and parameters."""
        return {metric: round(cost.of(counts)) for metric, cost in self.costs.items()}

    @cached_property
    def removed(self) -> Removal:
        """Importance that counts (G,) cut away."""
        return Removal([self.importance[group].double().numpy() for group in self.space.ids])

    def final_evaluator(self) -> Evaluator | None:
        """One that sees more of the search split and trains longer; None where the trials did
        all of that already.
        """
        more = min(len(self.search_images), FINAL_IMAGES * self.settings.images)
        steps = FINAL_STEPS * self.settings.distill_steps
        if more <= len(self.evaluator.x) and not steps:
            return None
        x, y = _scoring(self.search_images, max(more, len(self.evaluator.x)), self.seed)
        return replace(self.evaluator, x=x, y=y, steps=steps)


def prepare(
    model: nn.Module, graph: ChannelGraph, splits: Splits, settings: SearchConfig, seed: int
) -> Setup:
    """Space, budget, importance and evaluator; `model` is put in eval mode.

    Raises:
        Refused: the network has no prunable group.
        UsageError: the budget in MACs or parameters cannot be met.
    """
    if settings.align == "auto":
        raise UsageError("search.align: auto has not been settled", hint="--set search.align=8")
    space = Space.from_graph(graph, align=settings.align, min_keep=settings.min_keep)
    if not len(space):
        raise Refused(
            "nothing can be pruned: every channel group is frozen",
            hint="rlp inspect graph.json says why",
        )
    costs = {
        "macs": ProductCost.macs(graph, space.ids),
        "params": ProductCost.params(graph, space.ids),
    }
    metric, share = next((m, v) for m, v in settings.budget.model_dump().items() if v is not None)
    if metric in costs:
        projector = Projector.fraction(space, costs[metric], share)
    else:  # until `calibrate` has timed this network
        projector = Projector(space, costs["macs"], costs["macs"].of(space.sizes))
    model.eval()
    x, y = splits.train.take(settings.fit_images, seed=seed)
    importance = rank_channels(
        model, graph, settings.criterion, list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    )
    evaluator = Evaluator(
        model, graph, Ranking.of(space, importance), x.split(BATCH), *_scoring(splits.search, settings.images, seed),
        score=settings.score, steps=settings.distill_steps,
    )  # fmt: skip
    return Setup(
        settings, seed, metric, share, projector, costs, importance, evaluator, splits.search
    )


def _scoring(images: Images, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A class-balanced draw in random order, so that its first part is about as balanced as the
    whole.
    """
    x, y = images.take(count, seed=seed)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return x[order].contiguous(memory_format=torch.channels_last), y[order]

"""What one search is about: a network, its space, its budget, and how candidates are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor, nn

from pipeline.channels.costs import CostModel, ProductCost
from pipeline.channels.counts import Cost, Counts
from pipeline.channels.graph import ChannelGraph
from pipeline.config.search import ACCURACY_DROP, SearchConfig
from pipeline.data.images import Images
from pipeline.data.splits import Splits
from pipeline.errors import Hint, Refused, UsageError
from pipeline.run.rounds import ONLY_ROUND, Round
from pipeline.training.evaluate import device_of
from stages.prune.importance import completed, rank_channels
from stages.reconstruct.branch_refits import BranchRefits
from stages.reconstruct.independent import Moments
from stages.reconstruct.units import rank_units
from stages.search.budget import RoundBudget, resolve_budget
from stages.search.evaluation.evaluator import Evaluator
from stages.search.latency.table import Calibration
from stages.search.space.projection import Projector
from stages.search.space.ranking import Importance, Ranking
from stages.search.space.space import Space
from stages.search.strategies import FROM_TABLE, STRATEGIES
from stages.search.strategies.base import Strategy, Task
from stages.search.tables.loss_table import LossTable
from stages.search.tables.solver import solve

Calibrate = Callable[[Space, Ranking, Cost], Calibration]
"""(space, ranking, MACs) -> table of latencies; asked only where latency is the budget."""

OBS = "obs"
_BATCH = 256  # train images at once


@dataclass(frozen=True)
class Network:
    """A model and its channel graph."""

    model: nn.Module
    graph: ChannelGraph


@dataclass(frozen=True)
class Original:
    """The network before any cut, which all numbers of all rounds are relative to.

    Attributes:
        sizes: units of every prunable group.
        costs: its "macs" and "params".
    """

    model: nn.Module
    sizes: Mapping[str, int]
    costs: Mapping[str, int]

    @classmethod
    def of(cls, network: Network) -> Original:
        """Counts what the network has."""
        sizes = {group.id: group.size for group in network.graph.prunable}
        model = CostModel(network.graph)
        costs = {"macs": model.macs(), "params": model.params()}
        return cls(network.model, MappingProxyType(sizes), MappingProxyType(costs))


@dataclass(frozen=True)
class SearchProblem:
    """One search; `build` makes it, once, and nothing changes it afterwards.

    Attributes:
        align: channels that widths are multiples of.
        network: what this round cuts; the original in the first round.
        costs: "macs" and "params", exact for any counts of the space.
        importance: of the units of every group of the space, on one scale over all groups: larger
            is more important.
        ranking: which units of a group stay.
        fit: train images in batches (B, C, H, W).
        moments: of the network, with which candidates are reconstructed; None: they are not.
        search_images: the search split.
        calibration: where latency is the budget.
    """

    settings: SearchConfig
    seed: int
    round: Round
    align: int
    network: Network
    original: Original
    budget: RoundBudget
    costs: Mapping[str, Cost]
    importance: Importance
    ranking: Ranking
    fit: tuple[Tensor, ...]
    search_images: Images
    moments: Moments | None = None
    calibration: Calibration | None = None

    @classmethod
    def build(
        cls,
        network: Network,
        splits: Splits,
        settings: SearchConfig,
        seed: int,
        *,
        align: int,
        round: Round = ONLY_ROUND,
        original: Network | None = None,
        calibrate: Calibrate | None = None,
        unlimited: bool = False,
    ) -> SearchProblem:
        """Resolve everything; puts the models in eval mode.

        Args:
            align: `search.align`, settled where that says "auto".
            original: the network before any cut; absent in the first round, which starts from it.
            calibrate: what times candidates where latency is the budget.
            unlimited: leave the budget at the cost of the whole network, as it is for a drop of
                accuracy until plans were measured.
        Raises:
            Refused: the network has no prunable group.
            UsageError: the budget cannot be met, or asks for nothing. The first round says so for
                all of them.
        """
        counted = Original.of(original or network)
        for model in (network.model, counted.model):
            model.eval()
        space = _space(network.graph, settings, align, counted)
        costs: dict[str, Cost] = {
            "macs": ProductCost.macs(network.graph, space.ids),
            "params": ProductCost.params(network.graph, space.ids),
        }
        x, y = _on(network.model, *splits.train.take(settings.fit_images, seed=seed))
        moments = _moments(network, settings, x, seed)
        ordered, importance = _ranked(network, (x, y), settings.criterion, moments)
        ranking, calibration = Ranking.of(space, ordered), None
        if settings.budget.metric not in costs:  # only timing tells what a share of the latency is
            if calibrate is None:
                raise ValueError("a latency budget needs `calibrate`")
            calibration = calibrate(space, ranking, costs["macs"])
        key, limit = _limit(settings, unlimited)
        return cls(
            settings=settings,
            seed=seed,
            round=round,
            align=align,
            network=network,
            original=counted,
            budget=resolve_budget(key, limit, round, space, costs, counted.costs, calibration),
            costs=MappingProxyType(costs),
            importance=tuple(importance[name].double().numpy() for name in space.ids),
            ranking=ranking,
            fit=x.split(_BATCH),
            search_images=splits.search,
            moments=moments if settings.reconstruct else None,
            calibration=calibration,
        )

    @property
    def projector(self) -> Projector:
        """Onto the budget."""
        return self.budget.projector

    @property
    def space(self) -> Space:
        return self.projector.space

    @cached_property
    def evaluator(self) -> Evaluator:
        """What scores the trials."""
        return self._evaluator(self.settings.images, self.settings.distill_steps)

    def final_evaluator(self) -> Evaluator | None:
        """One for finalists, on more images after more steps; None where trials had all of that."""
        settings, rules = self.settings, self.settings.evaluation
        count = min(len(self.search_images), rules.final_images * settings.images)
        steps = rules.final_steps * settings.distill_steps
        if count <= len(self.evaluator.x) and steps == settings.distill_steps:
            return None
        return self._evaluator(max(count, len(self.evaluator.x)), steps)

    def table_evaluator(self) -> Evaluator:
        """What scores cuts of single groups: by the divergence, and never trained."""
        return self._evaluator(self.settings.table.images, 0, score="divergence", alike=True)

    def strategy(
        self,
        name: str,
        *,
        trials: int,
        table: LossTable | None = None,
        start: Counts | None = None,
        seed: int | None = None,
    ) -> Strategy:
        """A fresh strategy for this problem.

        Args:
            table: what `tabulate` measured; None: strategies start from the global ranking.
            start: the solution of the table, which takes seconds; None: it is looked for where the
                strategy starts from it.
        Raises:
            UsageError: there is no strategy of this name.
        """
        if name not in STRATEGIES:
            raise UsageError(
                f"unknown search strategy {name!r}", hint=f"one of {', '.join(STRATEGIES)}"
            )
        chosen = self.seed if seed is None else seed
        if start is None and table is not None and name in FROM_TABLE:
            start = solve(table, self.projector)
        return STRATEGIES[name](
            Task(self.projector, self.importance, chosen, trials, self.settings, table, start)
        )

    def within(self, share: float) -> SearchProblem:
        """The same problem with a budget of `share` of what the network of this round costs."""
        limit = share * self.projector.cost.of(self.space.sizes)
        budget = replace(
            self.budget,
            asked=self.of_original(share),
            share=share,
            projector=self.projector.with_limit(limit),
        )
        return replace(self, budget=budget)

    def of_original(self, share: float) -> float:
        """A share of what the network of this round costs, as one of the original's cost."""
        if self.calibration is not None:
            return share * self.calibration.start.fraction
        metric = self.budget.metric
        at_start = self.costs[metric].of(self.space.sizes)
        return share * at_start / self.original.costs[metric]

    def exact_costs(self, counts: Counts) -> dict[str, int]:
        """MACs and parameters of counts (G,)."""
        return {metric: round(cost.of(counts)) for metric, cost in self.costs.items()}

    def all_costs(self, counts: Counts) -> dict[str, float]:
        """MACs and parameters; where latency is the budget also that, as predicted.

        Latency is a fraction of the original's.
        """
        found: dict[str, float] = dict(self.exact_costs(counts))
        if self.calibration is not None:
            found["latency"] = self.calibration.table.of(counts) * self.calibration.start.fraction
        return found

    def _evaluator(
        self, images: int, steps: int, score: str | None = None, *, alike: bool = False
    ) -> Evaluator:
        x, y = _scoring_images(self.search_images, images, self.seed)
        x, y = _on(self.network.model, x, y)
        return Evaluator(
            self.network.model,
            self.network.graph,
            self.ranking,
            teacher=self.original.model,
            fit=self.fit,
            x=x,
            y=y,
            moments=self.moments,
            score=score or self.settings.score,
            steps=steps,
            rules=self.settings.evaluation,
            alike=alike,
        )


def _on(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels on the device of `model`; streamed ones come from the CPU."""
    device = device_of(model)
    return x.to(device), y.to(device)


def _space(graph: ChannelGraph, settings: SearchConfig, align: int, counted: Original) -> Space:
    space = Space.from_groups(
        graph.groups,
        align=align,
        min_keep=settings.min_keep,
        original=counted.sizes,
        branches=graph.whole_branches if settings.branches else (),
    )
    if not len(space):
        raise Refused(
            "nothing can be pruned: every channel group is frozen",
            hint=Hint.command("inspect", "graph.json", says="says why"),
        )
    return space


def _moments(network: Network, settings: SearchConfig, images: Tensor, seed: int) -> Moments | None:
    """What reconstruction and `obs` need, where one of them is asked for."""
    if not settings.reconstruct and settings.criterion != OBS:
        return None
    both, refits = (network.model, network.graph), None
    if settings.reconstruct and settings.branches:
        refits = BranchRefits.of(*both, images, seed)
    return Moments(*both, images, seed=seed, branches=refits)


def _limit(settings: SearchConfig, unlimited: bool) -> tuple[str, float | None]:
    """The budget's key and value; None where it is to be as large as the network."""
    key, value = settings.budget.given
    if unlimited or key == ACCURACY_DROP:
        return settings.budget.metric, None
    return key, value


def _ranked(
    network: Network, images: tuple[Tensor, Tensor], criterion: str, moments: Moments | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Importance of the units of every group: as the criterion orders them, and on one scale."""
    model, graph = network.model, network.graph
    x, y = images
    batches = list(zip(x.split(_BATCH), y.split(_BATCH), strict=True))
    if criterion != OBS or moments is None:
        found = rank_channels(model, graph, criterion, batches)
        return found, found
    # errors of different layers' outputs are in different units
    comparable = rank_channels(model, graph, "taylor", batches)
    errors = rank_units(moments, graph)
    read = {name: own for name, own in errors.items() if bool(own.any())}
    return completed(model, graph, read), comparable


def _scoring_images(images: Images, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A class-balanced draw in random order: its first part is about as balanced as the whole."""
    x, y = images.take(count, seed=seed)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return x[order].contiguous(memory_format=torch.channels_last), y[order]

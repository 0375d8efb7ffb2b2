"""The front of one search problem: plans for many budgets, some of them measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.channels.counts import Counts
from pipeline.config.schema import ReconstructConfig
from pipeline.data.splits import Splits
from stages.search.engine import Search
from stages.search.evaluation.executor import InProcess
from stages.search.evaluation.trial import Trial
from stages.search.front.measuring import ReconstructedAccuracy
from stages.search.front.points import (
    FRONT,
    FrontPoint,
    Known,
    predicted,
    shares,
    undominated,
)
from stages.search.problem import SearchProblem
from stages.search.space.candidate import Candidate
from stages.search.space.projection import Projector
from stages.search.tables.loss_table import LossTable
from stages.search.tables.solver import solve

BUDGETS = 24
"""Budgets that plans are made for, the whole network among them."""

Solver = Callable[[LossTable, Projector], Counts]
OnTrial = Callable[[Trial, bool], None]


@dataclass
class FrontMaker:
    """Makes points and measures them.

    Args:
        search: with an executor that says how accurate a plan is; absent: none is measured.
        expect: told how many plans will be measured in all, before each batch.

    Attributes:
        trials: one a plan that was measured.
    """

    problem: SearchProblem
    table: LossTable
    search: Search | None = None
    expect: Callable[[int], None] = lambda total: None

    def __post_init__(self) -> None:
        self.trials: list[Trial] = []

    @classmethod
    def reconstructing(
        cls,
        problem: SearchProblem,
        table: LossTable,
        splits: Splits,
        settings: ReconstructConfig,
        *,
        recorded: Mapping[tuple[str, int], Trial],
        on_trial: OnTrial,
        expect: Callable[[int], None],
        check: Callable[[], None] = lambda: None,
    ) -> FrontMaker:
        """One that reconstructs plans as stage reconstruct would.

        Args:
            recorded, on_trial: see `Search`.
            check: called between layers and plans; raises to stop.
        """
        images = None
        if settings.images:
            images, _ = splits.train.take(settings.images, seed=problem.seed)
        network, limit = problem.network, settings.memory_mb << 20
        evaluator = ReconstructedAccuracy(
            network.model,
            network.graph,
            problem.ranking,
            images,
            splits.search,
            seed=problem.seed,
            max_bytes=limit,
            check=check,
        )
        search = Search(InProcess(evaluator), recorded=recorded, on_trial=on_trial, check=check)
        return cls(problem, table, search, expect)

    @property
    def least(self) -> float:
        """Cost of the smallest plan as a share of the whole."""
        space, cost = self.problem.space, self.problem.projector.cost
        return cost.of(space.least) / cost.of(space.sizes)

    def points(
        self,
        count: int = BUDGETS,
        *,
        solver: Solver = solve,
        on_point: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[FrontPoint]:
        """Plans for budgets between the whole network and the smallest, but for those dominated.

        Args:
            on_point: called with (done, total) after each.
        """
        found = []
        for share in shares(self.least, count):
            found.append(self.point(share, solver))
            on_point(len(found), count)
        return undominated(found)

    def point(self, share: float, solver: Solver = solve) -> FrontPoint:
        """The plan for a budget of `share` of the whole network's cost."""
        whole = self.problem.projector
        projector = whole.with_limit(share * whole.cost.of(whole.space.sizes))
        counts = solver(self.table, projector)
        return FrontPoint(counts, share, projector.cost.of(counts), self.table(counts))

    def measured(self, points: Sequence[FrontPoint]) -> list[FrontPoint]:
        """The same points after measuring; equal plans are measured once."""
        assert self.search is not None
        self.expect(len(self.trials) + len(points))
        candidates = [
            Candidate(point.counts, np.zeros(0), f"budget {point.share:.4g}", eligible=False)
            for point in points
        ]
        trials = self.search.score(FRONT, candidates, first=len(self.trials))
        self.trials += trials
        pairs = zip(points, trials, strict=True)
        return [replace(p, accuracy=trial.outcome.accuracy, measured=True) for p, trial in pairs]

    def whole(self) -> FrontPoint:
        """The network before the cut, measured."""
        return self.measured([_whole(self.problem)])[0]

    def front(
        self, points: Sequence[FrontPoint], most: int, known: Sequence[Known] = ()
    ) -> list[FrontPoint]:
        """Measure `most` of the points beside the whole network, and predict the others' accuracy
        from them; the points of the front, cheapest first.

        Args:
            known: what is predicted from where `most` is 0.
        """
        whole = self.whole()
        chosen = spread([point for point in points if point.loss > 0], most)
        found = {point.key: point for point in self.measured(chosen)}
        return completed([whole, *(found.get(point.key, point) for point in points)], known)


def _whole(problem: SearchProblem) -> FrontPoint:
    sizes = problem.space.sizes
    return FrontPoint(sizes, 1.0, problem.projector.cost.of(sizes), 0.0)


def spread(points: Sequence[FrontPoint], most: int) -> list[FrontPoint]:
    """`most` of the points, evenly from the first to the last."""
    if most >= len(points):
        return list(points)
    return [points[round(place)] for place in np.linspace(0, len(points) - 1, most)]


def completed(points: Sequence[FrontPoint], known: Sequence[Known] = ()) -> list[FrontPoint]:
    """The front of these points, every one with an accuracy.

    Args:
        points: the whole network, with its accuracy, and others.
        known: what is predicted from where no other was measured.
    """
    front = undominated(points)
    smaller = [(p.loss, p.accuracy or 0.0) for p in front if p.measured and p.loss > 0]
    whole = [point.accuracy or 0.0 for point in points if point.loss <= 0]
    # a plan that happens to be better than the whole network takes that off the front
    best = max([*whole, *(accuracy for _, accuracy in smaller)])
    return predicted(front, [(0.0, best), *(smaller or known)])

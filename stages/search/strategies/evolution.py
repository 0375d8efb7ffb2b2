"""`evolution`: CMA-ES over keep-ratio logits, from the `cmaes` library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import EnvironmentProblem
from stages.search.strategies.base import WARM_START, Problem, Proposal, Vector, greedy_counts

SPREAD = (
    0.5  # of the first population, in logits: keep ratio 0.5 varies between about 0.38 and 0.62
)


class Evolution:
    """Started at the global-taylor distribution, like the learned policy, so that the two can
    be compared.
    """

    def __init__(self, problem: Problem) -> None:
        try:
            from cmaes import CMA
        except ImportError:
            raise EnvironmentProblem(
                "search.strategy=evolution needs the package cmaes", hint="pip install cmaes"
            ) from None
        self.problem = problem
        start = problem.space.logits(greedy_counts(problem)).clip(-4, 4)
        population = int(problem.options.get("population", 8))
        self.cma = CMA(mean=start, sigma=SPREAD, seed=problem.seed, population_size=population)
        self._first: list[Proposal] | None = None
        self._scored: list[tuple[Vector, float]] = []

    def ask(self, room: int) -> list[Proposal]:
        if self._first is None:
            counts = greedy_counts(self.problem)
            self._first = [Proposal(counts, self.problem.space.logits(counts), WARM_START)]
            return self._first[:room]
        count = min(room, self.cma.population_size - len(self._scored))
        actions = [self.cma.ask() for _ in range(count)]
        return [
            Proposal(self.problem.projector.logits(action), action, "cma-es") for action in actions
        ]

    def tell(self, proposals: Sequence[Proposal], scores: Sequence[float]) -> None:
        drawn = [
            (p.action, -s) for p, s in zip(proposals, scores, strict=True) if p.origin == "cma-es"
        ]
        self._scored.extend(drawn)
        if len(self._scored) == self.cma.population_size:
            self.cma.tell(self._scored)
            self._scored = []

    def state(self) -> dict[str, Vector]:
        return {"mean": np.asarray(self.cma.mean, dtype=np.float64).copy()}

    def findings(self) -> list[str]:
        return ["CMA-ES met its own stopping rule"] if self.cma.should_stop() else []

"""`evolution`: CMA-ES over keep-ratio logits, from the `cmaes` library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.search.space.candidate import WARM_START, Candidate
from stages.search.strategies.base import START_LIMIT, Task, Vector

_DRAWN = "cma-es"


class Evolution:
    """Starts at the table's solution, like the learned policy, to be comparable."""

    def __init__(self, task: Task) -> None:
        from cmaes import CMA  # it imports scipy.stats, which takes a second

        self.task, section = task, task.settings.evolution
        self.warm = task.start
        self.cma = CMA(
            mean=task.space.logits(self.warm).clip(max=START_LIMIT),
            sigma=section.spread,
            seed=task.seed,
            population_size=section.population,
        )
        self._begun = False
        self._scored: list[tuple[Vector, float]] = []

    def ask(self, room: int) -> list[Candidate]:
        """The warm start alone at first, then draws up to the end of a generation."""
        if not self._begun:
            self._begun = True
            return [Candidate(self.warm, self.task.space.logits(self.warm), WARM_START)][:room]
        count = min(room, self.cma.population_size - len(self._scored))
        actions = [self.cma.ask() for _ in range(count)]
        return [Candidate(self.task.projector.logits(one), one, _DRAWN) for one in actions]

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Updates mean and covariance when a generation is complete."""
        for candidate, score in zip(candidates, scores, strict=True):
            if candidate.proposed_as == _DRAWN:
                self._scored.append((candidate.action, -score))  # cmaes minimises
        if len(self._scored) == self.cma.population_size:  # cmaes takes whole generations
            self.cma.tell(self._scored)
            self._scored = []

    def state(self) -> dict[str, Vector]:
        return {"mean": np.asarray(self.cma.mean, dtype=np.float64).copy()}

    def findings(self) -> list[str]:
        return ["CMA-ES met its own stopping rule"] if self.cma.should_stop() else []

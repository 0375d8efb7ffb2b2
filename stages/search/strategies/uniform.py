"""`uniform`: the same keep ratio everywhere; the control that any search must beat."""

from __future__ import annotations

import numpy as np

from stages.search.strategies.base import Problem, Proposal, Stateless, uniform_counts


class Uniform(Stateless):
    """One candidate."""

    def __init__(self, problem: Problem) -> None:
        self._left = [Proposal(uniform_counts(problem), np.zeros(len(problem.space)), "uniform")]

    def ask(self, room: int) -> list[Proposal]:
        out, self._left = self._left[:room], self._left[room:]
        return out

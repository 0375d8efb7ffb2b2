"""`uniform`: the same keep ratio everywhere; the control that any search must beat."""

from __future__ import annotations

import numpy as np

from stages.search.space.candidate import Candidate
from stages.search.strategies.base import Task, Unlearning, uniform_counts


class Uniform(Unlearning):
    """One candidate."""

    def __init__(self, task: Task) -> None:
        self._left = [Candidate(uniform_counts(task), np.zeros(len(task.space)), "uniform")]

    def ask(self, room: int) -> list[Candidate]:
        """The candidate at the first call, nothing after it."""
        out, self._left = self._left[:room], self._left[room:]
        return out

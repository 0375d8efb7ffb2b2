"""`global-taylor`: one ranking of all blocks by Taylor importance per unit of cost; no search."""

from __future__ import annotations

from stages.search.space.candidate import Candidate
from stages.search.strategies.base import Task, Unlearning, greedy_counts


class GlobalTaylor(Unlearning):
    """One candidate."""

    def __init__(self, task: Task) -> None:
        counts = greedy_counts(task)
        self._left = [Candidate(counts, task.space.logits(counts), "global-taylor")]

    def ask(self, room: int) -> list[Candidate]:
        """The candidate at the first call, nothing after it."""
        out, self._left = self._left[:room], self._left[room:]
        return out

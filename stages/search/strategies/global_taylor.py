"""`global-taylor`: one ranking of all blocks by Taylor importance per unit of cost; no search."""

from __future__ import annotations

from stages.search.strategies.base import Problem, Proposal, Stateless, greedy_counts


class GlobalTaylor(Stateless):
    """One candidate."""

    def __init__(self, problem: Problem) -> None:
        counts = greedy_counts(problem)
        self._left = [Proposal(counts, problem.space.logits(counts), "global-taylor")]

    def ask(self, room: int) -> list[Proposal]:
        out, self._left = self._left[:room], self._left[room:]
        return out

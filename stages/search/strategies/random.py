"""`random`: independent keep ratios, projected onto the budget; the control at equal
evaluations.
"""

from __future__ import annotations

import numpy as np

from stages.search.strategies.base import Problem, Proposal, Stateless

BATCH = 8


class Random(Stateless):
    """Keep ratios uniform in (0, 1), one per group, before projection."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.rng = np.random.default_rng(problem.seed)

    def ask(self, room: int) -> list[Proposal]:
        out = []
        for _ in range(min(room, BATCH)):
            ratio = self.rng.uniform(0.02, 0.98, len(self.problem.space))
            action = np.log(ratio) - np.log1p(-ratio)
            out.append(Proposal(self.problem.projector.logits(action), action, "random"))
        return out

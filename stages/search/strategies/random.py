"""`random`: independent keep ratios, projected; the control at equal evaluations."""

from __future__ import annotations

import numpy as np

from stages.search.space.candidate import Candidate
from stages.search.strategies.base import Task, Unlearning

_BATCH = 8
_LEAST, _MOST = 0.02, 0.98  # keep ratios before projection; at 0 and 1 a logit is infinite


class Random(Unlearning):
    """Keep ratios uniform between almost 0 and almost 1, one per group, before projection."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rng = np.random.default_rng(task.seed)

    def ask(self, room: int) -> list[Candidate]:
        """Up to eight fresh draws."""
        out = []
        for _ in range(min(room, _BATCH)):
            ratio = self.rng.uniform(_LEAST, _MOST, len(self.task.space))
            action = np.log(ratio) - np.log1p(-ratio)
            out.append(Candidate(self.task.projector.logits(action), action, "random"))
        return out

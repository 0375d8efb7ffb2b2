"""`rlpruner`: the policy of RL-Pruner (arXiv 2411.06463) as published, on honest splits, for
reference.

One vector of shares PD, one entry a group, summing to 1: how much of a step's cut each group gives
up. A step removes part of the network; rounds x samples candidates are tried; after a round that
improves the step's best, PD moves towards the best action and each entry's change is clipped.
Constants are the published ones. What differs, because the evaluations are limited and the budget
is a cost: the steps share the budget in equal parts of cost instead of 1 % of the filters each,
there are as many as the trials allow at 10 rounds x 10 samples (one at least), and no distillation
runs between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.search.space import Counts
from stages.search.strategies.base import Problem, Proposal, Vector

ROUNDS, SAMPLES = 10, 10
NOISE = 0.04
FLOOR = 1e-5
RATE = 0.1
CLIP = 0.25
GREEDY, GREEDY_DECAY = (
    0.4,
    0.1,
)  # epsilon at the start, and the share of a step's rounds over which it decays
BUFFER = 10


class RLPruner:
    """Proposals of all steps but the last are over the final budget, hence not eligible as
    plans.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, space = problem, problem.space
        self.rng = np.random.default_rng(problem.seed)
        self.steps = max(1, problem.trials // (ROUNDS * SAMPLES))
        self.rounds = math.ceil(problem.trials / self.steps / SAMPLES)
        self.step, self.round = 0, 0
        self.share = space.sizes / space.sizes.sum()
        self.start: Counts = space.sizes.copy()
        self.buffer: list[tuple[float, Vector, Counts]] = []
        self.told = 0

    def _counts(self, share: Vector) -> Counts:
        """Give up `share` of ever more units until this step's part of the budget is met."""
        base = self.problem.projector.cost.of(self.problem.space.sizes)
        part = (self.step + 1) / self.steps
        limit = base - (base - self.problem.projector.limit) * part
        stepwise = replace(self.problem.projector, limit=limit)
        most = float(self.problem.space.sizes.max() / share.min())
        start = self.start
        return stepwise.along(
            lambda t: np.maximum(start - share * (most ** (1 - t) - 1), 0.0), 0.0, 1.0
        )

    def _noisy(self, share: Vector) -> Vector:
        noise = self.rng.standard_normal(len(share)) * NOISE * self.rng.uniform(0, 1, len(share))
        moved = np.maximum(share + noise, FLOOR)
        return moved / moved.sum()

    def ask(self, room: int) -> list[Proposal]:
        if self.step == self.steps:
            return []
        last = self.step == self.steps - 1
        out = []
        for _ in range(min(room, SAMPLES)):
            action = self._noisy(self._parent())
            origin = f"step {self.step + 1}/{self.steps}"
            out.append(
                Proposal(self._counts(action), action, origin, eligible=last, step=self.step)
            )
        return out

    def _parent(self) -> Vector:
        """PD itself, or with probability epsilon one of the best actions so far of this step."""
        decay = min(1.0, self.round / max(1.0, GREEDY_DECAY * self.rounds))
        epsilon = GREEDY * 0.5 * (1 + math.cos(math.pi * decay))
        if self.buffer and self.rng.uniform() < epsilon:
            return self.buffer[self.rng.integers(len(self.buffer))][1]
        return self.share

    def tell(self, proposals: Sequence[Proposal], scores: Sequence[float]) -> None:
        best_before = self.buffer[0][0] if self.buffer else -math.inf
        for proposal, score in zip(proposals, scores, strict=True):
            self.buffer.append((score, proposal.action, proposal.counts))
        self.buffer = sorted(self.buffer, key=lambda item: -item[0])[:BUFFER]
        if self.buffer[0][0] > best_before:
            moved = self.share + RATE * (self.buffer[0][1] - self.share)
            moved = self.share * np.clip(moved / self.share, 1 - CLIP, 1 + CLIP)
            self.share = moved / moved.sum()
        self.round += 1
        if self.round == self.rounds:
            self.start = self.buffer[0][2]
            self.step, self.round, self.buffer = self.step + 1, 0, []

    def state(self) -> dict[str, Vector]:
        return {"share": self.share.copy()}

    def findings(self) -> list[str]:
        return []

"""`rlpruner`: the policy of RL-Pruner (arXiv 2411.06463) as published, on honest splits.

It is there for reference. One vector of shares PD, one entry a group, summing to 1: how much of a
step's cut each group gives up. A step removes part of the network; rounds x samples candidates are
tried; after a round that improves the step's best, PD moves towards the best action and each
entry's change is clipped.

Constants are the published ones. What differs, because the evaluations are limited and the budget
is a cost: the steps share the budget in equal parts of cost instead of 1 % of the filters each,
there are as many as the trials allow at 10 rounds x 10 samples (one at least), and no distillation
runs between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.channels.counts import Counts
from stages.search.space.candidate import Candidate
from stages.search.strategies.base import Task, Vector

ROUNDS, SAMPLES = 10, 10
NOISE = 0.04
FLOOR = 1e-5
RATE = 0.1
CLIP = 0.25
GREEDY = 0.4  # epsilon at the start
GREEDY_DECAY = 0.1  # share of a step's rounds over which it decays
BUFFER = 10

CONSTANTS: dict[str, object] = {
    "rounds": ROUNDS,
    "samples": SAMPLES,
    "noise": NOISE,
    "floor": FLOOR,
    "rate": RATE,
    "clip": CLIP,
    "greedy": GREEDY,
    "greedy_decay": GREEDY_DECAY,
    "buffer": BUFFER,
}


class RLPruner:
    """Proposals before the last step are above the final budget, hence not eligible as plans."""

    def __init__(self, task: Task) -> None:
        self.task, space = task, task.space
        self.rng = np.random.default_rng(task.seed)
        self.steps = max(1, task.trials // (ROUNDS * SAMPLES))
        self.rounds = math.ceil(task.trials / self.steps / SAMPLES)
        self.step, self.round = 0, 0
        self.share = space.sizes / space.sizes.sum()  # in proportion to width, as published
        self.start: Counts = space.sizes.copy()
        self.buffer: list[tuple[float, Vector, Counts]] = []

    def ask(self, room: int) -> list[Candidate]:
        """One round of a step: PD, or one of the step's best actions, with noise."""
        if self.step == self.steps:
            return []
        last = self.step == self.steps - 1
        label = f"step {self.step + 1}/{self.steps}"
        out = []
        for _ in range(min(room, SAMPLES)):
            action = self._noisy(self._parent())
            counts = self._counts(action)
            out.append(Candidate(counts, action, label, eligible=last, step=self.step))
        return out

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Moves PD where the step's best improved; after its last round the next step begins."""
        best_before = self.buffer[0][0] if self.buffer else -math.inf
        for candidate, score in zip(candidates, scores, strict=True):
            self.buffer.append((score, candidate.action, candidate.counts))
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

    def _counts(self, share: Vector) -> Counts:
        """Give up `share` of ever more units until this step's part of the budget is met."""
        projector, start = self.task.projector, self.start
        uncut = projector.cost.of(self.task.space.sizes)
        part = (self.step + 1) / self.steps
        limit = uncut - (uncut - projector.limit) * part
        # even the group with the least share must be able to give up all it has
        most = float(self.task.space.sizes.max() / share.min())
        return projector.with_limit(limit).along(
            lambda t: np.maximum(start - share * (most ** (1 - t) - 1), 0.0), 0.0, 1.0
        )

    def _noisy(self, share: Vector) -> Vector:
        noise = self.rng.standard_normal(len(share)) * NOISE * self.rng.uniform(0, 1, len(share))
        moved = np.maximum(share + noise, FLOOR)
        return moved / moved.sum()

    def _parent(self) -> Vector:
        """PD itself, or with probability epsilon one of the best actions so far of this step."""
        decay = min(1.0, self.round / max(1.0, GREEDY_DECAY * self.rounds))
        epsilon = GREEDY * 0.5 * (1 + math.cos(math.pi * decay))
        if self.buffer and self.rng.uniform() < epsilon:
            return self.buffer[self.rng.integers(len(self.buffer))][1]
        return self.share

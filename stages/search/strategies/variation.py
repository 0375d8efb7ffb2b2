"""Candidates made from those scored before, of which the critic picks.

Around one of the best they differ in all groups a little, in one group a lot, or in two that trade
a step; of two of the best, each group comes from one or the other. All are projected onto the
budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.config.search import PolicyConfig
from stages.search.space.candidate import Candidate, CountsKey
from stages.search.space.projection import Projector

Vector = NDArray[np.float64]

ELITE = 4  # of the best so far, whose widths are combined


class Variation:
    """Draws from one generator, so that equal histories give equal candidates."""

    def __init__(
        self, projector: Projector, settings: PolicyConfig, rng: np.random.Generator
    ) -> None:
        self.projector, self.settings, self.rng = projector, settings, rng

    def pool(self, seen: Mapping[CountsKey, float], spread: Vector) -> list[Candidate]:
        """As many of each kind.

        Args:
            seen: scores by counts, at least one.
            spread: of the policy, (G,).
        """
        elite = sorted(seen, key=seen.__getitem__, reverse=True)[:ELITE]
        return [
            *self._changed(elite, spread),
            *self._changed_in_one(elite, spread),
            *self._traded(elite),
            *self._crossed(elite),
            *self.anywhere(self.settings.draws),
        ]

    def anywhere(self, count: int) -> list[Candidate]:
        """Far from whatever was seen: a better distribution may lie beyond one that is worse."""
        noise = self.rng.standard_normal((count, len(self.projector.space)))
        return self.projected(self.settings.anywhere * noise, "anywhere")

    def projected(self, actions: Vector, proposed_as: str) -> list[Candidate]:
        """Candidates for actions (n, G)."""
        rows = self.projector.logits(actions)
        pairs = zip(rows, actions, strict=True)
        return [Candidate(counts, action, proposed_as) for counts, action in pairs]

    def _changed(self, elite: Sequence[CountsKey], spread: Vector) -> list[Candidate]:
        """Nearer than the policy draws around its mean."""
        noise = self.rng.standard_normal((self.settings.draws, len(spread)))
        actions = self._logits(elite[:1]) + self.settings.change * spread * noise
        return self.projected(actions, "change of the best")

    def _changed_in_one(self, elite: Sequence[CountsKey], spread: Vector) -> list[Candidate]:
        """One group as wide or narrow as may be; the budget moves the others."""
        count, extreme = self.settings.draws, self.settings.extreme
        noise = self.rng.standard_normal((count, len(spread)))
        actions = self._logits(elite[:1]) + self.settings.nudge * spread * noise
        groups = self.rng.integers(len(spread), size=count)
        actions[np.arange(count), groups] = self.rng.uniform(-extreme, extreme, count)
        return self.projected(actions, "one group changed")

    def _traded(self, elite: Sequence[CountsKey]) -> list[Candidate]:
        """One group a few steps wider, another a few narrower, of one of the best."""
        space, count = self.projector.space, self.settings.draws
        rows = np.array(elite)[self.rng.integers(len(elite), size=count)]
        for row in rows:
            wider, narrower = self.rng.permutation(len(space))[:2] if len(space) > 1 else (0, 0)
            for group, way in ((wider, 1), (narrower, -1)):
                own = space.widths(group)
                place = own.searchsorted(row[group]) + way * self.rng.integers(1, 4)
                row[:] = space.moved(row, group, own[int(np.clip(place, 0, len(own) - 1))])
        return self.projected(self._logits(rows), "two groups traded")

    def _crossed(self, elite: Sequence[CountsKey]) -> list[Candidate]:
        count, known = self.settings.draws, np.array(elite)
        first, second = known[self.rng.integers(len(known), size=(2, count))]
        rows = np.where(self.rng.random(first.shape) < 0.5, first, second)
        return self.projected(self._logits(rows), "two of the best crossed")

    def _logits(self, counts: Sequence[CountsKey] | Vector) -> Vector:
        """Actions (n, G) that give counts (n, G)."""
        centre = self.projector.space.logits(np.array(counts)).clip(max=self.settings.extreme)
        return centre - centre.mean(axis=-1, keepdims=True)

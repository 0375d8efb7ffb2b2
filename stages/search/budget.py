"""Projection of what a strategy wishes onto what the budget, the alignment and the floors allow.

A strategy's wish is a *ray*: desired counts that grow with one scalar t (for a policy: keep ratio =
sigmoid(logit + t)). The projection takes the largest t whose snapped counts fit the budget, then
adds single blocks, the most wished for first, until no further block fits. So every projected
candidate is within the budget and within one block of it, and projecting a projected candidate
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Cost
from pipeline.errors import UsageError
from stages.search.space import Counts, Space

Ray = Callable[[float], NDArray[np.float64]]
"""t -> desired counts (G,)."""

Rays = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""t (B, 1) -> desired counts (B, G)."""

_REACH = 40.0
_HALVINGS = 28


@dataclass(frozen=True)
class Projector:
    """Budget, space and cost together.

    Attributes:
        limit: largest cost allowed, in the unit of `cost`.
        slack: relative rounding allowance when costs are compared.
    """

    space: Space
    cost: Cost
    limit: float
    slack: float = 1e-12

    @classmethod
    def fraction(cls, space: Space, cost: Cost, share: float) -> Projector:
        """Budget of `share` of the unpruned cost.

        Raises:
            UsageError: even all groups at their floors cost more; names the smallest reachable
                share.
        """
        base, least = cost.of(space.sizes), cost.of(space.floors)
        if least > share * base * (1 + 1e-12):
            reachable = np.ceil(least / base * 1000) / 1000
            raise UsageError(
                f"search.budget.{cost.metric}={share:g} cannot be met: the smallest reachable is {reachable:.3f} "
                f"({len(space)} prunable groups)",
                hint=f"--set search.budget.{cost.metric}={reachable:.3f}, or lower search.align or search.min_keep",
            )
        return cls(space, cost, share * base)

    def fits(self, counts: Counts) -> bool:
        """Whether these counts are within the budget."""
        return self.cost.of(counts) <= self._ceiling

    @property
    def _ceiling(self) -> float:
        return self.limit * (1 + self.slack)

    def logits(self, logits: NDArray[np.float64]) -> Counts:
        """Counts for per-group keep-ratio logits, (G,) or (B, G); adding a constant to a row
        changes nothing.
        """
        sizes, wishes = self.space.sizes, np.atleast_2d(logits)
        centred = np.clip(wishes - wishes.mean(axis=1, keepdims=True), -_REACH / 2, _REACH / 2)
        counts = self._along(
            lambda t: sizes / (1 + np.exp(-(centred + t))), -_REACH, _REACH, len(wishes)
        )
        return counts.reshape(logits.shape)

    def along(self, ray: Ray, low: float, high: float) -> Counts:
        """Largest fitting counts on a ray; `ray(t)` must not decrease anywhere as t goes from
        `low` to `high`.
        """
        return self._along(lambda t: ray(t.item())[None], low, high, 1)[0]

    def _along(self, rays: Rays, low: float, high: float, rows: int) -> Counts:
        """As `along` for many rays at once, which is many times quicker than one after the
        other.
        """
        snap, limit = self.space.snap, self._ceiling
        least, most = np.full((rows, 1), low), np.full((rows, 1), high)
        top, counts = snap(rays(most)), snap(rays(least))
        all_fit, any_fit = (self.cost.each(ends)[:, None] <= limit for ends in (top, counts))
        counts = np.where(all_fit, top, np.where(any_fit, counts, self.space.floors))
        least, most = (
            np.where(all_fit, high, low),
            np.where(all_fit | any_fit, high, low),
        )  # the others stay there
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            tried = snap(rays(middle))
            fits = self.cost.each(tried)[:, None] <= limit
            counts = np.where(fits, tried, counts)
            least, most = np.where(fits, middle, least), np.where(fits, most, middle)
        return np.array(
            [self._fill(*pair) for pair in zip(counts, rays(most), strict=True)], dtype=np.int64
        )

    def _fill(self, counts: Counts, desired: NDArray[np.float64]) -> Counts:
        """Add single blocks while one fits: the group furthest below its wish first, the
        dearest among equals.
        """
        counts, blocks, limit = counts.copy(), self.space.blocks, self._ceiling
        room = limit - self.cost.of(counts)
        while True:
            steps = self.space.up(counts)
            deltas = self.cost.deltas(counts, steps)
            able = np.flatnonzero((steps > 0) & (deltas <= room))
            if not len(able):
                return counts
            wish = np.round((desired[able] - counts[able]) / blocks[able], 9)
            order = able[np.lexsort((-deltas[able], -wish))]
            several = order[
                np.cumsum(deltas[order]) <= room / 2
            ]  # deltas interact, hence the margin and the check
            for chosen in (several, order[:1]):
                tried = counts.copy()
                tried[chosen] += steps[chosen]
                if len(chosen) and (left := limit - self.cost.of(tried)) >= 0:
                    counts, room = tried, left
                    break
            else:
                return counts

"""Projection of what a strategy asks for onto what budget, alignment and floors allow.

A strategy names a target: counts that grow with one scalar t (for a policy, keep ratio =
sigmoid(logit + t)). The projection takes the largest t whose snapped counts fit the budget, then
adds single blocks, those furthest below their target first, until no further block fits. So every
projected candidate is within the budget and within one block of it, and projecting a projected
candidate changes nothing.

A branch that may go is gone where its target is less than half of its floor, and comes back as t
grows; filling up brings none back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Cost, Counts
from pipeline.errors import Hint, Key, Set, UsageError
from stages.search.space.space import Space

Target = Callable[[float], NDArray[np.float64]]
"""t -> target counts (G,)."""

_Targets = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""t (B, 1) -> target counts (B, G)."""

_REACH = 40.0  # logits: sigmoid(-40) keeps nothing, sigmoid(40) everything
_HALVINGS = 28  # of an interval of 80 logits: far below what moves any count


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
        """Budget of `share` of the uncut cost.

        Raises:
            UsageError: even the smallest counts cost more.
        """
        require_reachable(space, cost, share)
        return cls(space, cost, share * cost.of(space.sizes))

    def with_limit(self, limit: float) -> Projector:
        """The same space and cost under another budget."""
        return replace(self, limit=limit)

    def fits(self, counts: Counts) -> bool:
        """Whether these counts are within the budget."""
        return self.cost.of(counts) <= self._ceiling

    @property
    def keeping_branches(self) -> Projector:
        """The same where no branch goes; itself where the budget cannot be met so."""
        keeping = replace(self, space=replace(self.space, branches=()))
        return keeping if self.space.branches and self.fits(self.space.floors) else self

    def deltas(self, counts: Counts, steps: Counts) -> NDArray[np.float64]:
        """As the cost's, (G,), for any group that alone takes a step, also one with which a branch
        goes or comes back.
        """
        found, after = self.cost.deltas(counts, steps), counts + steps
        crossing = np.flatnonzero((counts == 0) != (after == 0))
        if len(crossing):
            rows = [self.space.moved(counts, group, after[group]) for group in crossing]
            found[crossing] = self.cost.each(np.array(rows)) - self.cost.of(counts)
        return found

    @property
    def _ceiling(self) -> float:
        return self.limit * (1 + self.slack)

    def logits(self, logits: NDArray[np.float64]) -> Counts:
        """Counts for keep-ratio logits, (G,) or (B, G); a constant added to a row changes nothing.

        Many rows at once are many times quicker than one after the other.
        """
        sizes, rows = self.space.sizes, np.atleast_2d(logits)
        centred = np.clip(rows - rows.mean(axis=1, keepdims=True), -_REACH / 2, _REACH / 2)
        counts = self._along(
            lambda t: sizes / (1 + np.exp(-(centred + t))), -_REACH, _REACH, len(rows)
        )
        return counts.reshape(logits.shape)

    def along(self, target: Target, low: float, high: float) -> Counts:
        """Largest fitting counts (G,) on the way of a target from `low` to `high`.

        Args:
            target: no entry of `target(t)` may decrease as t grows.
        """
        return self._along(lambda t: target(t.item())[None], low, high, 1)[0]

    def _along(self, targets: _Targets, low: float, high: float, rows: int) -> Counts:
        """As `along`, for many targets at once: bisection of t, then filling up."""
        snap, limit = self.space.snap, self._ceiling
        least, most = np.full((rows, 1), low), np.full((rows, 1), high)
        top, counts = snap(targets(most)), snap(targets(least))
        all_fit, any_fit = (self.cost.each(ends)[:, None] <= limit for ends in (top, counts))
        counts = np.where(all_fit, top, np.where(any_fit, counts, self.space.least))
        # where everything fits, or nothing does, both ends meet and the bisection stands still
        least = np.where(all_fit, high, low)
        most = np.where(all_fit | any_fit, high, low)
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            tried = snap(targets(middle))
            fits = self.cost.each(tried)[:, None] <= limit
            counts = np.where(fits, tried, counts)
            least, most = np.where(fits, middle, least), np.where(fits, most, middle)
        filled = [self._fill(*pair) for pair in zip(counts, targets(most), strict=True)]
        return np.array(filled, dtype=np.int64)

    def _fill(self, counts: Counts, target: NDArray[np.float64]) -> Counts:
        """Add single blocks while one fits.

        The group furthest below its target comes first, the most expensive one among equals.
        """
        counts, limit = counts.copy(), self._ceiling
        room = limit - self.cost.of(counts)
        while True:
            steps = self.space.up(counts)
            deltas = self.cost.deltas(counts, steps)
            able = np.flatnonzero((steps > 0) & (deltas <= room))
            if not len(able):
                return counts
            # what is equal must be so to the last bit: cost breaks the tie
            missing = np.round((target[able] - counts[able]) / self.space.blocks[able], 9)
            order = able[np.lexsort((-deltas[able], -missing))]
            # several at once are quicker; as deltas interact, half the room is left and the sum
            # is checked
            several = order[np.cumsum(deltas[order]) <= room / 2]
            for chosen in (several, order[:1]):
                tried = counts.copy()
                tried[chosen] += steps[chosen]
                if len(chosen) and (left := limit - self.cost.of(tried)) >= 0:
                    counts, room = tried, left
                    break
            else:
                return counts


def require_reachable(space: Space, cost: Cost, share: float, scale: float = 1.0) -> None:
    """Refuse a budget that no candidate meets.

    Args:
        share: the budget, `share * scale` of the uncut cost.
    Raises:
        UsageError: even the smallest counts cost more; names the smallest reachable share.
    """
    uncut, least = cost.of(space.sizes), cost.of(space.least)
    if least <= share * scale * uncut * (1 + 1e-12):
        return
    reachable = np.ceil(least / uncut / scale * 1000) / 1000
    key = f"search.budget.{cost.metric}"
    raise UsageError(
        f"{key}={share:g} cannot be met: the smallest reachable is {reachable:.3f} "
        f"({len(space)} prunable groups)",
        hint=Hint(
            Set(key, f"{reachable:.3f}"),
            ", or lower ",
            Key("search.align"),
            " or ",
            Key("search.min_keep"),
        ),
    )

"""Which widths are worth measuring: the narrowest, the middle, and halves where the curve bends;
and every branch that may go, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.channels.counts import Counts
from stages.search.space.space import Space
from stages.search.tables.loss_table import LossTable, interpolated

TOLERANCE = 0.002  # a loss this far from what was interpolated is as good as expected
RELATIVE = 0.1  # of the loss: what is far too much need not be known exactly

Entry = tuple[int, int]
"""(group, width)"""

Losses = Callable[[Sequence[Entry], int], Sequence[float]]
"""(entries, how many more may follow) -> the loss of each, the other groups being whole."""


def measure_table(space: Space, losses: Losses, most: int) -> LossTable:
    """Measure up to `most` widths a group, all groups of one depth of halving at once.

    Args:
        losses: may be asked several times, for other entries each time.
        most: at least 1; those with which a branch goes come on top.
    """
    widths = [space.widths(group) for group in range(len(space))]
    curves = [_Curve(own[own > 0], most) for own in widths]
    gone: dict[Entry, float] = {}
    while True:
        entries = [(g, w) for g, curve in enumerate(curves) for w in curve.wanted()]
        lacking = [] if gone else [(places[0], 0) for places in space.branches]
        if not entries and not lacking:
            break
        further = len(lacking) + sum(curve.room for curve in curves)
        found = losses([*lacking, *entries], further)
        gone |= zip(lacking, found, strict=False)
        for (group, width), loss in zip(entries, found[len(lacking) :], strict=True):
            curves[group].take(width, loss)
    for (group, width), loss in gone.items():
        curves[group].known[width] = loss
    return LossTable.of(widths, [curve.known for curve in curves])


@dataclass
class _Curve:
    """One group: what is known of it, and the gaps (places of their ends) to be halved next."""

    widths: Counts
    most: int
    known: dict[int, float] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def wanted(self) -> list[int]:
        """Widths to be measured now; none: the curve is known well enough."""
        last = len(self.widths) - 1
        if not self.known:
            self.gaps = [(0, last)]
            return [int(self.widths[0])] if last else []
        halves = [(low + high) // 2 for low, high in self.gaps if high - low > 1]
        return [int(self.widths[place]) for place in halves[: self.most - len(self.known)]]

    @property
    def room(self) -> int:
        """How many more may be measured at most, those wanted now among them."""
        return min(self.most, len(self.widths) - 1) - len(self.known) if self.wanted() else 0

    def take(self, width: int, loss: float) -> None:
        """Learn a loss; the halves of a gap that it does not fit into are gaps."""
        place = int(self.widths.searchsorted(width))
        gap = next((gap for gap in self.gaps if gap[0] < place < gap[1]), None)
        if gap is not None:
            expected = float(interpolated(self.widths, self.known)[place])
            self.gaps.remove(gap)
            if abs(loss - expected) > max(TOLERANCE, RELATIVE * loss):
                self.gaps += [(gap[0], place), (place, gap[1])]
        self.known[width] = loss

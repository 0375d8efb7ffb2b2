"""What every width of every group costs in accuracy, the other groups being whole.

    group     widths        8      16      24      32
    stem      losses      0.41    0.12    0.03    0.00    nats, against the whole network

What a candidate loses is predicted by the sum over its groups. Measured are a few widths; between
them the square root of the loss is interpolated by monotone cubics (Fritsch & Carlson 1980), which
never overshoot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from pipeline.channels.counts import Array, Counts


@dataclass(frozen=True)
class LossTable:
    """Losses of all groups at all allowed widths; a function of counts (G,).

    Attributes:
        widths: per group, its allowed widths, ascending; the last is the whole group.
        losses: per group, (widths,), never increasing; 0 at the last.
        measured: per group, what the losses rest on, {width: loss}.
    """

    widths: tuple[Counts, ...]
    losses: tuple[Array, ...]
    measured: tuple[Mapping[int, float], ...] = ()

    @classmethod
    def of(cls, widths: Sequence[Counts], measured: Sequence[Mapping[int, float]]) -> LossTable:
        """From the losses measured per group, `{width: loss}`."""
        pairs = zip(widths, measured, strict=True)
        losses = tuple(interpolated(own, known) for own, known in pairs)
        return cls(tuple(widths), losses, tuple(measured))

    def __call__(self, counts: Counts) -> float:
        """Predicted loss of a candidate, in the unit of the table."""
        triples = zip(self.widths, self.losses, counts, strict=True)
        # of a width between two, the narrower's loss would be too much
        return float(sum(losses[np.searchsorted(own, kept)] for own, losses, kept in triples))


def interpolated(widths: Counts, measured: Mapping[int, float]) -> Array:
    """Losses at all widths (W,): those measured, made monotone, and what lies between them.

    Args:
        measured: `{width: loss}`, with the narrowest; the widest counts as 0. A loss below that of
            a wider width is raised to it, and one below 0 to 0.
    """
    known = {**measured, int(widths[-1]): 0.0}
    at = np.array(sorted(known))
    values = np.maximum([known[width] for width in at.tolist()], 0.0)
    values = np.maximum.accumulate(values[::-1])[::-1]
    if len(at) == 1:
        return np.zeros(1)
    found: NDArray[np.float64] = PchipInterpolator(at, np.sqrt(values))(widths) ** 2
    found[-1] = 0.0  # but for round-off it is
    return np.minimum.accumulate(found)

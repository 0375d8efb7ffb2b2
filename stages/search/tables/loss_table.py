"""What every width of every group costs in accuracy, the other groups being whole.

    group     widths        8      16      24      32
    stem      losses      0.41    0.12    0.03    0.00    nats, against the whole network

What a candidate loses is predicted by the sum over its groups; of branches that go, the square
roots are summed, since layers behind make up for several less well than for each alone. Measured
are a few widths; between them the square root of the loss is interpolated by monotone cubics
(Fritsch & Carlson 1980), which never overshoot. Nothing is interpolated towards a width of 0, with
which a branch goes: of its groups the first loses all of that, and the others nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from pipeline.channels.counts import Array, Counts


@dataclass(frozen=True)
class LossTable:
    """Losses of all groups at all allowed widths; a function of counts (G,).

    Attributes:
        widths: per group, its allowed widths, ascending; the last is the whole group.
        losses: per group, (widths,); 0 at the last, and never increasing from the floor on.
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

    @cached_property
    def staying(self) -> LossTable:
        """The same table where no branch may go."""
        first = [int(not own[0]) for own in self.widths]
        widths = tuple(own[skip:] for own, skip in zip(self.widths, first, strict=True))
        losses = tuple(own[skip:] for own, skip in zip(self.losses, first, strict=True))
        return replace(self, widths=widths, losses=losses)

    def __call__(self, counts: Counts) -> float:
        """Predicted loss of a candidate, in the unit of the table."""
        triples = zip(self.widths, self.losses, counts, strict=True)
        # of a width between two, the narrower's loss would be too much
        lost = np.array([losses[np.searchsorted(own, kept)] for own, losses, kept in triples])
        gone = np.equal(counts, 0)
        return float(lost[~gone].sum() + np.sqrt(lost[gone]).sum() ** 2)


def interpolated(widths: Counts, measured: Mapping[int, float]) -> Array:
    """Losses at all widths (W,): those measured, made monotone, and what lies between them.

    Args:
        measured: `{width: loss}`, with the floor; the widest counts as 0. A loss below that of
            a wider width is raised to it, and one below 0 to 0. A width of 0 that is not measured
            loses nothing.
    """
    if not widths[0]:  # a branch without any unit may lose less than one with a few
        staying = {width: loss for width, loss in measured.items() if width}
        return np.append(max(measured.get(0, 0.0), 0.0), interpolated(widths[1:], staying))
    known = {**measured, int(widths[-1]): 0.0}
    at = np.array(sorted(known))
    values = np.maximum([known[width] for width in at.tolist()], 0.0)
    values = np.maximum.accumulate(values[::-1])[::-1]
    if len(at) == 1:
        return np.zeros(1)
    found: NDArray[np.float64] = PchipInterpolator(at, np.sqrt(values))(widths) ** 2
    found[-1] = 0.0  # but for round-off it is
    return np.minimum.accumulate(found)

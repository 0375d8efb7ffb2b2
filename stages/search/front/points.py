"""Points of the front: what a plan costs, what it is predicted to lose, how accurate it is.

cost ──▶  0.06    0.1    0.2    0.3    0.5    0.7    1
loss      9.1     3.2    1.1    0.5    0.2    0.04   0
accuracy  0.31    ·      0.74   ·      0.82   ·      0.84     · predicted from those measured
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from pipeline.channels.counts import Counts
from stages.search.space.candidate import CountsKey, key_of

FRONT = "front"
"""Phase of the plans that are reconstructed and measured."""

Known = tuple[float, float]
"""(predicted loss in nats, accuracy as a fraction) of a plan."""


@dataclass(frozen=True)
class FrontPoint:
    """One plan.

    Attributes:
        counts: units kept per group, (G,).
        share: the budget that it was made for, as a fraction of the cost of the whole network.
        cost: what it takes, in the unit of the budget's cost.
        loss: predicted by the table, in nats.
        accuracy: as a fraction; None until it is measured or predicted.
        measured: whether a reconstructed network had this accuracy.
    """

    counts: Counts
    share: float
    cost: float
    loss: float
    accuracy: float | None = None
    measured: bool = False

    @property
    def key(self) -> CountsKey:
        return key_of(self.counts)


def shares(least: float, count: int) -> list[float]:
    """`count` budgets from the whole network down to `least`, each the same part of the one before.

    Args:
        least: what no plan is below, as a fraction of the whole, in (0, 1].
        count: at least 2.
    """
    # the last one by hand: by round-off it could be out of reach
    return [float(share) for share in np.geomspace(1.0, least, count)[:-1]] + [least]


def undominated(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Those that no other beats in cost and loss, nor, where both are measured, in cost and
    accuracy; cheapest first. Of equal plans the measured one stays.
    """
    front: list[FrontPoint] = []
    best, measured = -1.0, {point.key for point in points if point.measured}
    for point in sorted(points, key=lambda one: (one.cost, one.loss)):
        if front and point.loss >= front[-1].loss:
            continue
        # a plan that lost by its measured accuracy must not come back as a predicted one
        if not point.measured and point.key in measured:
            continue
        if point.measured and point.accuracy is not None:
            if point.accuracy <= best:
                continue
            best = point.accuracy
        front.append(point)
    return front


def predicted(points: Sequence[FrontPoint], known: Sequence[Known]) -> list[FrontPoint]:
    """The points, those that are not measured with a predicted accuracy, which never rises with
    the loss.

    Between what is known, the accuracy is interpolated over the square root of the loss by monotone
    cubics; beyond, it stays what it is at the end. Measured points stay as they are.

    Args:
        known: plans of any cost; they may contradict each other.
    """
    if not known:
        return list(points)
    at, values = _falling(known)
    curve = PchipInterpolator(at, values) if len(at) > 1 else lambda x: values[0]
    return [
        point
        if point.measured
        else replace(
            point, accuracy=float(curve(np.clip(np.sqrt(max(point.loss, 0.0)), at[0], at[-1])))
        )
        for point in points
    ]


def _falling(known: Sequence[Known]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Square roots of distinct losses, ascending, and the falling accuracies nearest to those
    known.
    """
    losses, accuracies = np.array(known, dtype=np.float64).T
    at, place = np.unique(np.sqrt(np.maximum(losses, 0.0)), return_inverse=True)
    count = np.bincount(place)
    mean = np.bincount(place, accuracies) / count
    found = isotonic_regression(mean, weights=count, increasing=False).x
    return at, np.clip(found, 0.0, 1.0)

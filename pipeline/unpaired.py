"""Accuracies of which only the numbers are known, not which image each network names correctly."""

from __future__ import annotations

import math
from typing import Any

from scipy import stats


def share_interval(images: int, accuracy: float) -> list[float]:
    """Wilson's 95 % interval of an accuracy, as fractions."""
    interval = stats.binomtest(round(accuracy * images), images).proportion_ci(method="wilson")
    return [float(interval.low), float(interval.high)]


def unpaired_change(a: tuple[int, float], b: tuple[int, float]) -> dict[str, Any]:
    """The change of accuracy from `a` to `b`, each (images, accuracy), where image by image is not
    known: points, ci95 in points, and shown.

    The interval is Newcombe's (1998, method 10), of two Wilson intervals. On the same images it is
    wider than a paired one would be.
    """
    (low_a, high_a), (low_b, high_b) = share_interval(*a), share_interval(*b)
    one, other = a[1], b[1]
    low = other - one - math.hypot(other - low_b, high_a - one)
    high = other - one + math.hypot(high_b - other, one - low_a)
    ci95 = [100 * low, 100 * high]
    return {"points": 100 * (other - one), "ci95": ci95, "shown": not low <= 0 <= high}

"""Two networks scored on the same images: how much of the difference is more than chance.

Only images that one names correctly and the other does not say anything, so the interval is that of
paired proportions. With b of n images gained and c lost, the difference is (b - c) / n.

    gained 3, lost 9 of 1,000 images: -0.60 points (-1.32 to +0.12), p = 0.15: no difference shown
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy import special  # scipy.stats takes every command a second to import

_Z = float(special.ndtri(0.975))


def paired_change(images: int, gained: int, lost: int) -> dict[str, Any]:
    """The change of accuracy with its 95 % interval, in points, as JSON.

    The interval is Agresti and Min's (2005), a Wald interval with half an image more in each of the
    four cells, which keeps its coverage for few images; the p value is McNemar's exact one. A
    difference is shown where both say so: an interval that excludes 0 against the test is widened
    to hold it.

    Args:
        gained: images that only the second network names correctly.
        lost: images that only the first one does.
    Returns:
        images, gained, lost, points, ci95, p_value and shown.
    """
    fewer = float(special.bdtr(min(gained, lost), gained + lost, 0.5))
    p_value = min(1.0, 2 * fewer)
    n, b, c = images + 2, gained + 0.5, lost + 0.5
    half = _Z * math.sqrt(b + c - (b - c) ** 2 / n) / n
    low, high = (b - c) / n - half, (b - c) / n + half
    if p_value >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    return {
        "images": images,
        "gained": gained,
        "lost": lost,
        "points": 100 * (gained - lost) / images,
        "ci95": [100 * low, 100 * high],
        "p_value": p_value,
        "shown": p_value < 0.05 and not low <= 0 <= high,
    }


def images_to_decide(change: Mapping[str, Any], limit: float) -> int | None:
    """How many images would tell a drop from a limit, both in points; None where they are equal."""
    distance = abs(limit + change["points"])
    rate = (change["gained"] + change["lost"] + 1) / (change["images"] + 2)
    return math.ceil(rate * (100 * _Z / distance) ** 2) if distance > 1e-9 else None


def near_chance(accuracy: float, images: int, classes: int) -> bool:
    """Whether guessing among the classes would do as well (one-sided exact binomial test)."""
    right = round(accuracy * images)
    so_many = float(special.bdtrc(right - 1, images, 1 / classes)) if right else 1.0
    return classes > 1 and so_many >= 0.05

"""Accuracy class by class, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.benchmark.accuracy import Named

MOST_CLASSES = 100
"""Above, no confusion is kept: a table of 1,000 × 1,000 says nothing to anyone."""


def class_counts(base: Named, final: Named, classes: int) -> dict[str, Any]:
    """What two files name of the same test images, counted by true class, as JSON.

    Args:
        classes: how many there are.
    Returns:
        images: of each class; `base` and `final`: those that each file names correctly; gained and
        lost: those that only the final, or only the base file does; confusion: of both files
        counts by true class (row) and named class (column), None above `MOST_CLASSES` classes.
    """

    def count(which: np.ndarray) -> list[int]:
        return np.bincount(base.labels[which], minlength=classes).tolist()  # type: ignore[no-any-return]

    was, now = base.correct, final.correct
    few = classes <= MOST_CLASSES
    return {
        "images": count(np.ones(len(was), bool)),
        "base": count(was),
        "final": count(now),
        "gained": count(now & ~was),
        "lost": count(was & ~now),
        "confusion": {"base": _table(base, classes), "final": _table(final, classes)}
        if few
        else None,
    }


def _table(named: Named, classes: int) -> list[list[int]]:
    """Counts by true and named class; an output beyond the last class is no class, and not here."""
    inside = named.classes < classes
    cells = named.labels[inside] * classes + named.classes[inside]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).tolist()  # type: ignore[no-any-return]

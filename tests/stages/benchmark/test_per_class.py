"""Counts of test images by class."""

from __future__ import annotations

import numpy as np
import pytest

from stages.benchmark import per_class
from stages.benchmark.accuracy import Named
from stages.benchmark.per_class import class_counts

LABELS = np.array([0, 0, 0, 1, 1, 2])
BASE = Named(LABELS, np.array([0, 0, 1, 1, 2, 2]))
FINAL = Named(LABELS, np.array([0, 2, 0, 1, 2, 7]))  # 7: an output that no class has


def test_images_are_counted_by_class_before_and_after() -> None:
    assert class_counts(BASE, FINAL, 3) == {
        "images": [3, 2, 1],
        "base": [2, 1, 1],
        "final": [2, 1, 0],
        "gained": [1, 0, 0],
        "lost": [1, 0, 1],
        "confusion": {
            "base": [[2, 1, 0], [0, 1, 1], [0, 0, 1]],
            "final": [[2, 0, 1], [0, 1, 1], [0, 0, 0]],
        },
    }


def test_many_classes_are_counted_without_their_confusion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_class, "MOST_CLASSES", 2)
    found = class_counts(BASE, FINAL, 3)
    assert found["confusion"] is None
    assert sum(found["images"]) == 6

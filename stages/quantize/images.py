"""Labelled images in batches of any size, as arrays: what calibration and scoring read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np


class Batches(Protocol):
    """A set of images (`pipeline.data.Images`, say)."""

    def batches(self, batch_size: int) -> Iterable[tuple[Any, Any]]:
        """Pairs of images (N, C, H, W) float32, normalised, and classes (N,)."""


class ArrayImages:
    """Images (N, C, H, W) float32 in memory, and their classes (N,) where they are known."""

    def __init__(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        self.x, self.y = x, y

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for at in range(0, len(self.x), batch_size):
            part = slice(at, at + batch_size)
            yield self.x[part], None if self.y is None else self.y[part]


class Unlabelled:
    """The same images, of which nobody says the classes."""

    def __init__(self, images: Batches) -> None:
        self._images = images

    def batches(self, batch_size: int) -> Iterator[tuple[Any, None]]:
        for x, _ in self._images.batches(batch_size):
            yield x, None


def first(images: Batches, count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The first `count` images, `size` at a time; the last batch may be smaller."""
    left = count
    for x, y in images.batches(size):
        if left <= 0:
            return
        classes = None if y is None else np.asarray(y)[:left]
        yield np.ascontiguousarray(np.asarray(x)[:left], np.float32), classes
        left -= len(x)

"""What a split of images holds, as its files keep it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decoded:
    """A split whose files hold plain pixels.

    Attributes:
        pixels: (N, H, W, C) uint8.
        labels: (N,) int64.
        skipped: images left out because they could not be read.
    """

    pixels: np.ndarray
    labels: np.ndarray
    skipped: int = 0


@dataclass(frozen=True)
class Encoded:
    """A split of image files (JPEG, PNG, …) that are decoded later.

    Attributes:
        read: gives the bytes of image i.
        labels: (N,) int64.
        name: what to call image i in a message.
    """

    read: Callable[[int], bytes]
    labels: np.ndarray
    name: Callable[[int], str]

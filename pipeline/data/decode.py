"""Encoded images (JPEG, PNG, …): what their headers say, and their pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pipeline.data.content import Encoded
from pipeline.preprocessing import UNREADABLE, Fit, decode, open_image, upright_size
from pipeline.system import usable_cores

GREY_MODES = frozenset({"L", "1", "I", "I;16", "F", "LA"})
_CHUNK = 256  # images a task: a future costs as much as decoding a small one
# Annex K of the JPEG standard, row by row: the table that libjpeg scales by its quality
# fmt: off
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)
# fmt: on


@dataclass
class Survey:
    """What the headers of a split say.

    Attributes:
        sizes: images by (height, width), readable ones.
        encodings: images by how they are stored (`encoding`).
        grey: whether no image has colour.
        bad: images whose header cannot be read.
        contents: sha256 of the bytes of every other one.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    grey: bool = True
    bad: list[int] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)


def survey(images: Encoded) -> Survey:
    """Read every image once and look at its header; decode nothing."""
    found = Survey()
    for i in range(len(images.labels)):
        try:
            raw = images.read(i)
            with open_image(raw) as image:
                height, width = upright_size(image)
                found.sizes[height, width] += 1
                found.encodings[encoding(image)] += 1
                found.grey &= image.mode in GREY_MODES
            found.contents.append(hashlib.sha256(raw).digest())
        except UNREADABLE:
            found.bad.append(i)
    return found


def encoding(image: Image.Image) -> str:
    """`JPEG q75`, `JPEG` when its tables are not libjpeg's, `PNG`, …"""
    if image.format != "JPEG":
        return image.format or "unknown"
    quality = jpeg_quality(tuple(getattr(image, "quantization", {}).get(0, ())))
    return f"JPEG q{quality}" if quality else "JPEG"


def jpeg_quality(luminance: tuple[int, ...]) -> int | None:
    """libjpeg's quality (1 … 100) that makes this luminance table (64 numbers), or None."""
    return _QUALITIES.get(luminance)


def _scaled(quality: int) -> tuple[int, ...]:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality  # jpeg_quality_scaling()
    return tuple(min(255, max(1, (value * scale + 50) // 100)) for value in _LUMINANCE)


_QUALITIES = {_scaled(quality): quality for quality in range(1, 101)}


def resize_all(pixels: np.ndarray, fit: Fit) -> np.ndarray:
    """`pixels` (N, H, W, C) uint8 as (N, height, width, C); itself if nothing changes."""
    if pixels.shape[1:3] == (fit.height, fit.width):
        return pixels
    out = np.empty((len(pixels), fit.height, fit.width, pixels.shape[3]), np.uint8)
    for i, picture in enumerate(pixels):
        plain = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        out[i] = np.array(fit.apply(plain)).reshape(out.shape[1:])
    return out


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """`pixels` (N, H, W, C) uint8 with 1 or 3 channels, as Pillow converts; itself if it has."""
    if pixels.shape[3] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=3)
    grey = [np.array(Image.fromarray(picture).convert("L")) for picture in pixels]
    return np.stack(grey)[..., None]


def decode_all(
    images: Encoded, *, grey: bool, shape: tuple[int, int], fit: Fit | None
) -> tuple[np.ndarray, np.ndarray]:
    """Every image, in threads.

    Args:
        shape: (height, width) of every image after `fit` was applied.
    Returns:
        pixels (N, H, W, C) uint8 of the images that can be read, and their indices (N,).
    """
    count = len(images.labels)
    pixels = np.zeros((count, *shape, 1 if grey else 3), np.uint8)
    good = np.zeros(count, bool)

    def some(start: int) -> None:
        for i in range(start, min(start + _CHUNK, count)):
            array = try_decode(images, i, grey=grey, fit=fit)
            # a header may have hidden that a picture lies on its side
            if array is not None and array.shape[:2] == shape:
                pixels[i], good[i] = array, True

    # Pillow lets go of the interpreter's lock while it decodes.
    with ThreadPoolExecutor(max_workers=min(8, usable_cores())) as pool:
        for _ in pool.map(some, range(0, count, _CHUNK)):
            pass  # asked for, so that an exception of a thread is raised here
    return (pixels if good.all() else pixels[good]), np.flatnonzero(good)


def try_decode(images: Encoded, i: int, *, grey: bool, fit: Fit | None) -> np.ndarray | None:
    """`decode` of image i, or None when it is damaged."""
    try:
        return decode(images.read(i), grey=grey, fit=fit)
    except UNREADABLE:
        return None

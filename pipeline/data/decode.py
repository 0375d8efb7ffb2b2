"""Encoded images (JPEG, PNG, …): what their headers say, and their pixels."""

from __future__ import annotations

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageFile
from torch.nn import functional as F

from pipeline.data.content import Encoded
from pipeline.system import usable_cores

GREY_MODES = frozenset({"L", "1", "I", "I;16", "F", "LA"})
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
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
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    grey: bool = True
    bad: list[int] = field(default_factory=list)


def survey(images: Encoded) -> Survey:
    """Read every header, decode nothing."""
    found = Survey()
    for i in range(len(images.labels)):
        try:
            with _open(images.read(i)) as image:
                found.sizes[image.height, image.width] += 1
                found.encodings[encoding(image)] += 1
                found.grey &= image.mode in GREY_MODES
        except _UNREADABLE:
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


def decode(raw: bytes, *, grey: bool, size: int | None = None) -> np.ndarray:
    """Pixels (H, W, 1 or 3) uint8; with `size`, resized and centre-cropped to size × size.

    Raises:
        OSError, ValueError, SyntaxError, EOFError: the image is damaged; Pillow raises any of them.
    """
    with _open(raw) as image:
        if size is not None and image.size != (size, size):
            # Twice the size, as Pillow's thumbnail(): the resize then still averages over real
            # pixels.
            image.draft(None, (2 * size, 2 * size))  # a JPEG then decodes at a fraction of its size
        picture = image.convert("L" if grey else "RGB")
    if size is not None and picture.size != (size, size):
        picture = centre(picture, size)
    return np.array(picture).reshape(picture.height, picture.width, 1 if grey else 3)


def centre(picture: Image.Image, size: int) -> Image.Image:
    """Shorter side resized to `size`, then the middle size × size."""
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.resize((width, height), Image.Resampling.BILINEAR).crop(
        (left, top, left + size, top + size)
    )


def resize_all(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """`pixels` (N, H, W, C) uint8 as (N, height, width, C), bilinear; itself if nothing changes."""
    if pixels.shape[1:3] == (height, width):
        return pixels
    out = np.empty((len(pixels), height, width, pixels.shape[3]), np.uint8)
    for start in range(0, len(pixels), _CHUNK):
        part = torch.from_numpy(pixels[start : start + _CHUNK]).permute(0, 3, 1, 2)
        resized = F.interpolate(part, (height, width), mode="bilinear", antialias=True)
        out[start : start + _CHUNK] = resized.permute(0, 2, 3, 1).numpy()
    return out


def decode_all(
    images: Encoded, *, grey: bool, shape: tuple[int, int], size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Every image, in threads.

    Args:
        shape: (height, width) of every image after `size`, as in `decode`, was applied.
    Returns:
        pixels (N, H, W, C) uint8 of the images that can be read, and their indices (N,).
    """
    count = len(images.labels)
    pixels = np.zeros((count, *shape, 1 if grey else 3), np.uint8)
    good = np.zeros(count, bool)

    def some(start: int) -> None:
        for i in range(start, min(start + _CHUNK, count)):
            array = try_decode(images, i, grey=grey, size=size)
            if array is not None:
                pixels[i], good[i] = array, True

    # Pillow lets go of the interpreter's lock while it decodes.
    with ThreadPoolExecutor(max_workers=min(8, usable_cores())) as pool:
        for _ in pool.map(some, range(0, count, _CHUNK)):
            pass  # asked for, so that an exception of a thread is raised here
    return (pixels if good.all() else pixels[good]), np.flatnonzero(good)


def try_decode(images: Encoded, i: int, *, grey: bool, size: int | None) -> np.ndarray | None:
    """`decode` of image i, or None when it is damaged."""
    try:
        return decode(images.read(i), grey=grey, size=size)
    except _UNREADABLE:
        return None


def _open(raw: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(raw))

"""From the bytes of a picture to the tensor a network sees: one specification, written here once.

Training decodes with it, and a deploy folder carries it word for word, so it needs NumPy and Pillow
and nothing else. A picture becomes, in this order: its first frame, upright as its EXIF data say;
8-bit grey (ITU-R 601 luma) or RGB, 16-bit grey by its high byte, transparency dropped; resized; and
(value / 255 - mean) / std.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile

VERSION = 2
"""Raised when the same bytes give other pixels: what was decoded before is then decoded anew."""
CROP, SQUASH = "crop", "squash"
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for a damaged picture."""
# no EPS among them, for which Pillow starts Ghostscript, whatever the file is called
_FORMATS = (
    *("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "PPM", "TIFF", "AVIF", "HEIF"),
    *("JPEG2000", "TGA", "PCX", "ICO"),
)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MOST_PIXELS = 1 << 24  # of a picture between two steps; a pixel is up to 4 bytes
_SIDEWAYS = (5, 6, 7, 8)
_SIXTEEN = ("PNG", "PPM")  # formats whose 16 bits Pillow may hold in 32


@dataclass(frozen=True)
class Fit:
    """The size of every picture, and what becomes of one that has another.

    Attributes:
        resize: "crop" scales until both sides are covered and takes the middle, "squash" lets the
            sides' ratio go.
    """

    height: int
    width: int
    resize: str = CROP

    def apply(self, picture: Image.Image) -> Image.Image:
        """The picture at height × width, bilinear over all pixels that an output pixel covers."""
        wanted = (self.width, self.height)
        if picture.size == wanted:
            return picture
        if self.resize == SQUASH:
            return picture.resize(wanted, Image.Resampling.BILINEAR)
        sides = list(zip(wanted, picture.size, strict=True))
        scale = max(want / side for want, side in sides)
        width, height = (max(want, round(side * scale)) for want, side in sides)
        left, top = (width - self.width) // 2, (height - self.height) // 2
        box = (left, top, left + self.width, top + self.height)
        if width * height > _MOST_PIXELS:  # a strip: its middle alone is scaled
            x, y = picture.width / width, picture.height / height
            middle = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
            return picture.resize(wanted, Image.Resampling.BILINEAR, box=middle)
        return picture.resize((width, height), Image.Resampling.BILINEAR).crop(box)


@dataclass(frozen=True)
class Preprocessing:
    """All that lies between a picture and the network.

    Attributes:
        channels: 1 (grey) or 3 (R, G, B).
        mean, std: per channel, of values scaled to 0 … 1.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = CROP

    def pixels(self, picture: bytes | Image.Image) -> np.ndarray:
        """(height, width, channels) uint8 of an encoded or an opened picture. Raises UNREADABLE."""
        fit = Fit(self.height, self.width, self.resize)
        return decode(picture, grey=self.channels == 1, fit=fit)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """The network's input (N, C, H, W) float32 of `pixels` (N, H, W, C) uint8."""
        values = self.table()
        planes = [values[c][pixels[..., c]] for c in range(self.channels)]
        return np.ascontiguousarray(np.stack(planes, axis=1))

    def table(self) -> np.ndarray:
        """(C, 256) float32: what each of the 256 values becomes, rounded once at the end."""
        scale, shift = (row.astype(np.float64)[:, None] for row in self.scale_and_shift())
        return (np.arange(256) * scale + shift).astype(np.float32)

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """(C,) float32 each: value · scale + shift is what the network sees."""
        mean, std = np.array(self.mean, np.float64), np.array(self.std, np.float64)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The specification for people and programs; `from_dict` reads it."""
        words = {"version": VERSION, "orientation": "exif", "interpolation": "bilinear"}
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), **words}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Preprocessing:
        """Inverse of `to_dict`. Raises KeyError where something is missing."""
        height, width, channels = (int(raw[key]) for key in ("height", "width", "channels"))
        mean, std = tuple(raw["mean"]), tuple(raw["std"])
        return cls(height, width, channels, mean, std, str(raw["resize"]))


def decode(picture: bytes | Image.Image, *, grey: bool, fit: Fit | None = None) -> np.ndarray:
    """Pixels (H, W, 1 or 3) uint8 of a picture; with `fit`, at its size.

    Raises:
        OSError, ValueError, SyntaxError, EOFError …: damaged; one of UNREADABLE.
    """
    image = open_image(picture) if isinstance(picture, bytes) else picture
    if fit is not None and image.size != (fit.width, fit.height):
        # A JPEG then decodes at a fraction of its size. Twice what is needed, as Pillow's
        # thumbnail(): the resize still averages over real pixels.
        side = 2 * max(fit.height, fit.width)
        image.draft(None, (side, side))
    image.load()
    shown = in_colours(upright(image), grey)
    if fit is not None:
        shown = fit.apply(shown)
    return np.array(shown).reshape(shown.height, shown.width, 1 if grey else 3)


def open_image(raw: bytes) -> ImageFile.ImageFile:
    """A picture in one of the formats that are read, not decoded yet. Raises UNREADABLE."""
    Image.init()  # which of them this Pillow has
    return Image.open(io.BytesIO(raw), formats=[name for name in _FORMATS if name in Image.OPEN])


def upright(image: Image.Image) -> Image.Image:
    """A loaded picture as a viewer shows it: turned and mirrored as its EXIF data say."""
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> Sequence[int]:
    """Height and width of an opened picture as a viewer shows it; decodes nothing."""
    late = image.format == "PNG" and "exif" not in image.info  # Pillow would decode it to look
    turned = image.format == "TIFF"  # Pillow has done it already
    sideways = not late and not turned and orientation(image) in _SIDEWAYS
    return image.size if sideways else (image.height, image.width)


def orientation(image: Image.Image) -> int:
    """1 … 8 by the EXIF data, 1 where they say nothing or are damaged."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (*UNREADABLE, TypeError, KeyError, OverflowError):
        return 1
    return found if isinstance(found, int) else 1


def in_colours(image: Image.Image, grey: bool) -> Image.Image:
    """8-bit grey or RGB."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN)
    if sixteen:  # Pillow's own conversion would cut at 255 instead
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("L" if grey else "RGB")

"""Pictures of the kinds that two decoders like to disagree about, made from one fixed pattern."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL
from PIL import Image


def pattern(width: int, height: int, channels: int = 3) -> np.ndarray:
    """(height, width, channels) uint8 without any symmetry, so that every turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * (c + 3) + y * (5 - c) + (x * y) // (7 + c)) % 256 for c in range(channels)]
    return np.stack(planes, axis=2).astype(np.uint8)


def rgb(width: int = 61, height: int = 40) -> Image.Image:
    return Image.fromarray(pattern(width, height))


def encoded(image: Image.Image, fmt: str, turn: int = 0, **options: Any) -> bytes:
    """The file; `turn` is an EXIF orientation."""
    if turn:
        exif = Image.Exif()
        exif[0x0112] = turn
        options["exif"] = exif.tobytes()
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


def awkward() -> dict[str, bytes]:
    """Files by a name that says what is awkward about them."""
    return {**_turned(), **_coloured(), **_deep(), **_sized(), **_stored()}


def _turned() -> dict[str, bytes]:
    found = {f"jpeg turned {n}": encoded(rgb(), "JPEG", n) for n in range(1, 9)}
    found |= {f"png turned {n}": encoded(rgb(), "PNG", n) for n in (3, 6)}
    found |= {f"webp turned {n}": encoded(rgb(), "WEBP", n, lossless=True) for n in (5, 8)}
    tags = {0x0112: 6}
    found["tiff turned 6"] = encoded(rgb(), "TIFF", tiffinfo=tags)
    found["jpeg turned 9, which means nothing"] = encoded(rgb(), "JPEG", 9)
    found["jpeg with torn exif"] = encoded(rgb(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    return found


def _coloured() -> dict[str, bytes]:
    palette = rgb().quantize(32)
    clear = pattern(61, 40, 4)
    half = pattern(61, 40, 2)
    found = {}
    if int(PIL.__version__.partition(".")[0]) >= 13:  # earlier ones cannot read what they wrote
        found["ycbcr tiff"] = encoded(rgb().convert("YCbCr"), "TIFF")
    return found | {
        "cmyk jpeg": encoded(rgb().convert("CMYK"), "JPEG"),
        "cmyk tiff": encoded(rgb().convert("CMYK"), "TIFF"),
        "palette": encoded(palette, "PNG"),
        "palette of two": encoded(rgb().quantize(2), "PNG"),
        "palette with transparency": encoded(palette, "PNG", transparency=3),
        "rgb with a transparent colour": encoded(rgb(), "PNG", transparency=(0, 0, 0)),
        "rgba": encoded(Image.fromarray(clear), "PNG"),
        "rgba webp": encoded(Image.fromarray(clear), "WEBP", lossless=True),
        "grey with alpha": encoded(Image.fromarray(half, "LA"), "PNG"),
        "grey jpeg": encoded(rgb().convert("L"), "JPEG"),
        "black and white": encoded(rgb().convert("1"), "PNG"),
        "black and white tiff": encoded(rgb().convert("1"), "TIFF", compression="group4"),
    }


def _deep() -> dict[str, bytes]:
    deep = pattern(61, 40, 1)[..., 0].astype(np.uint16) * 257
    # 16 bits below 256: nearly black, and white where someone cuts them at 255
    dark = Image.fromarray(deep // 300)
    wide = Image.fromarray((deep // 257).astype(np.int32))
    return {
        "16-bit grey png": encoded(Image.fromarray(deep), "PNG"),
        "16-bit grey tiff": encoded(Image.fromarray(deep), "TIFF"),
        "16-bit grey pgm": b"P5 61 40 65535\n" + deep.astype(">u2").tobytes(),
        "16-bit grey, dark": encoded(dark, "PNG"),
        "32-bit grey tiff": encoded(wide, "TIFF"),
        "float tiff": encoded(Image.fromarray(deep.astype(np.float32) / 257), "TIFF"),
    }


def _sized() -> dict[str, bytes]:
    sizes = ((1, 1), (1, 40), (300, 1), (2, 3), (16, 16), (17, 16), (640, 31), (33, 700))
    found = {f"png {w}×{h}": encoded(rgb(w, h), "PNG") for w, h in sizes}
    found["huge jpeg"] = encoded(rgb(3000, 2000), "JPEG", quality=60)
    found["huge jpeg on its side"] = encoded(rgb(1500, 900), "JPEG", 6)
    return found


def _stored() -> dict[str, bytes]:
    frames = [rgb(50, 30), rgb(50, 30).rotate(180)]
    more = {"save_all": True, "append_images": frames[1:]}
    return {
        "progressive jpeg": encoded(rgb(200, 120), "JPEG", progressive=True),
        "jpeg without subsampling": encoded(rgb(200, 120), "JPEG", subsampling=0),
        "gif": encoded(rgb(), "GIF"),
        "gif of two frames": encoded(frames[0], "GIF", **more),
        "webp of two frames": encoded(frames[0], "WEBP", **more),
        "png of two frames": encoded(frames[0], "PNG", **more),
        "lossy webp": encoded(rgb(), "WEBP", quality=40),
        "interlaced palette bmp": encoded(rgb().quantize(16), "BMP"),
        "tga": encoded(rgb(), "TGA"),
    }

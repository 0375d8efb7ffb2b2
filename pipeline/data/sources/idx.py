"""MNIST-like sets: four IDX files, plain or gzipped, in torchvision's folders or all in one."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.content import Decoded
from pipeline.data.reading import open_file, read_file
from pipeline.data.sources.base import Source, guess_kind
from pipeline.errors import ArtifactError, Command, Hint

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

_PREFIX = {"train": "train", "test": "t10k"}
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_KNOWN = {  # folder name in small letters without dashes: (label, class names)
    "mnist": ("MNIST", tuple("0123456789")),
    "fashionmnist": ("Fashion-MNIST", FASHION_CLASSES),
    "kmnist": ("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
}
_MAX_BYTES = 1 << 30
_AGAIN = Hint("fetch the data set again: ", Command("data", "get", "NAME", "FOLDER"))


class Idx(Source):
    """Grey images of one size. A folder with a known name gives the classes theirs."""

    kind = "idx"
    about = (
        "MNIST, Fashion-MNIST, KMNIST and the like: "
        "train-images-idx3-ubyte(.gz) and its three companions"
    )
    splits = ("train", "test")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        owner = folder.resolve().parent if folder.resolve().name == "raw" else folder.resolve()
        known = _KNOWN.get(owner.name.lower().replace("-", "").replace("_", ""))
        self.label = known[0] if known else owner.name
        self._pairs = {
            split: (self._find(split, "images-idx3"), self._find(split, "labels-idx1"))
            for split in _PREFIX
        }
        self.classes = known[1] if known else self._numbered()

    @classmethod
    def recognise(cls, root: Path) -> bool:
        return _folder(root) is not None

    @classmethod
    def open(cls, root: Path | None, config: DataConfig) -> Idx:
        folder = _folder(root) if root else None
        if folder is None:
            raise ArtifactError(f"{root}: there is no train-images-idx3-ubyte", hint=_AGAIN)
        return cls(folder)

    def files(self, split: str) -> tuple[Path, ...]:
        return self._pairs[split]

    def read(self, split: str) -> Decoded:
        images, labels = (read_idx(path) for path in self._pairs[split])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ArtifactError(
                f"{self.label}: {split} has {len(images)} images of {images.ndim - 1} dimensions, "
                f"{len(labels)} labels"
            )
        return Decoded(images[..., None], labels.astype(np.int64))

    def _find(self, split: str, part: str) -> Path:
        name = f"{_PREFIX[split]}-{part}-ubyte"
        for path in (self._folder / name, self._folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise ArtifactError(f"{self.label}: {self._folder / name} is missing", hint=_AGAIN)

    def _numbered(self) -> tuple[str, ...]:
        largest = int(read_idx(self._pairs["train"][1]).max(initial=0))
        return tuple(str(k) for k in range(largest + 1))


def _folder(root: Path) -> Path | None:
    torchvisions = (root / name / "raw" for name in ("FashionMNIST", "MNIST", "KMNIST"))
    for candidate in (root, root / "raw", *torchvisions):
        if any(candidate.glob("train-images-idx3-ubyte*")):
            return candidate
    return None


def read_idx(path: Path) -> np.ndarray:
    """A uint8 array from an IDX file: 0, 0, type 8, ndim, big-endian sizes, bytes.

    Raises:
        ArtifactError: the file cannot be read, or header and length do not agree.
    """
    try:
        raw = _plain_bytes(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = guess_kind(path) or error
        raise ArtifactError(f"{path} is damaged: {reason}", hint=_AGAIN) from error
    shape = _shape(raw)
    if shape is None:
        reason = guess_kind(path) or "header and length do not agree"
        raise ArtifactError(f"{path} is damaged: {reason}", hint=_AGAIN)
    # Copied, for an array over `bytes` is read-only and torch warns of it.
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()


def _plain_bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return read_file(path, _MAX_BYTES)
    with open_file(path, _MAX_BYTES) as packed, gzip.open(packed) as stream:
        return stream.read(_MAX_BYTES + 1)  # a bomb ends here, and its length is wrong


def _shape(raw: bytes) -> tuple[int, ...] | None:
    """What the header says; None unless the rest of the file has just that size."""
    if raw[:3] != b"\0\0\x08" or raw[3:4] not in (b"\1", b"\3"):
        return None
    ndim = raw[3]
    if len(raw) < 4 + 4 * ndim:
        return None
    shape = tuple(int(n) for n in np.frombuffer(raw[4 : 4 + 4 * ndim], ">i4"))
    whole = 4 + 4 * ndim + math.prod(shape)
    return shape if min(shape) >= 0 and whole == len(raw) else None

"""MNIST-like sets: four IDX files, plain or gzipped, as torchvision lays them out or all in one
folder.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.sources.base import Decoded, Source, guess_kind
from pipeline.errors import ArtifactError

if TYPE_CHECKING:
    from pipeline.config.schema import DataConfig

_PREFIX = {"train": "train", "test": "t10k"}
_FASHION = (
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
    "fashionmnist": ("Fashion-MNIST", _FASHION),
    "kmnist": ("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
}
_MAX_BYTES = 1 << 30
_AGAIN = "fetch the data set again: rlp data get"


class Idx(Source):
    kind = "idx"
    about = "MNIST, Fashion-MNIST, KMNIST and the like: train-images-idx3-ubyte(.gz) and its three companions"
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
                f"{self.label}: {split} has {len(images)} images of {images.ndim - 1} dimensions, {len(labels)} labels"
            )
        return Decoded(images[..., None], labels.astype(np.int64))

    def _find(self, split: str, part: str) -> Path:
        name = f"{_PREFIX[split]}-{part}-ubyte"
        for path in (self._folder / name, self._folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise ArtifactError(f"{self.label}: {self._folder / name} is missing", hint=_AGAIN)

    def _numbered(self) -> tuple[str, ...]:
        return tuple(
            str(k) for k in range(int(read_idx(self._pairs["train"][1]).max(initial=0)) + 1)
        )


def _folder(root: Path) -> Path | None:
    pattern = "train-images-idx3-ubyte*"
    for candidate in (
        root,
        root / "raw",
        *(root / name / "raw" for name in ("FashionMNIST", "MNIST", "KMNIST")),
    ):
        if any(candidate.glob(pattern)):
            return candidate
    return None


def read_idx(path: Path) -> np.ndarray:
    """A uint8 array from an IDX file: 0, 0, type 8, ndim, big-endian sizes, bytes.

    Raises ArtifactError unless header and length agree.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                raw = stream.read(_MAX_BYTES + 1)
        else:
            raw = path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactError(
            f"{path} is damaged: {guess_kind(path) or error}", hint=_AGAIN
        ) from error
    ndim = raw[3] if len(raw) > 3 and raw[:3] == b"\0\0\x08" and raw[3] in (1, 3) else 0
    shape = (
        tuple(int(n) for n in np.frombuffer(raw[4 : 4 + 4 * ndim], ">i4"))
        if len(raw) >= 4 + 4 * ndim
        else ()
    )
    if (
        not ndim
        or min(shape, default=-1) < 0
        or 4 + 4 * ndim + int(np.prod(shape, dtype=object)) != len(raw)
    ):
        raise ArtifactError(
            f"{path} is damaged: {guess_kind(path) or 'header and length do not agree'}",
            hint=_AGAIN,
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape).copy()

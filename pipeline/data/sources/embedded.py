"""The images that travel with the package: real, small, offline.

How they were made: pipeline/data/embedded/README.md.
"""

from __future__ import annotations

import io
import json
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.data.content import Decoded
from pipeline.data.hashing import sha256_bytes
from pipeline.data.sources.base import Source
from pipeline.errors import ArtifactError

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

_REINSTALL = "reinstall the package: its embedded images are damaged"


def embedded_folder() -> Path:
    """Where the strips lie in this installation."""
    return Path(str(package_files("pipeline") / "data" / "embedded"))


class Embedded(Source):
    """Two PNG strips, all images of a split one below the other, and an index with the labels."""

    kind = "embedded"
    about = "12,000 + 2,000 Fashion-MNIST images inside the package; needs no files and no network"
    splits = ("train", "test")

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.classes = tuple(index["classes"])
        self.label = "Fashion-MNIST (embedded 12k subset)"
        self._shape = tuple(index["shape"])
        self._splits: dict[str, dict[str, Any]] = index["splits"]

    @classmethod
    def recognise(cls, root: Path) -> bool:
        return False  # chosen by name only

    @classmethod
    def open(cls, root: Path | None, config: DataConfig) -> Embedded:
        folder = root or embedded_folder()
        try:
            return cls(folder, json.loads((folder / "index.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"embedded images: {folder / 'index.json'} cannot be read ({error})",
                hint=_REINSTALL,
            ) from error

    def files(self, split: str) -> tuple[Path, ...]:
        return (self.folder / self._splits[split]["file"], self.folder / "index.json")

    def read(self, split: str) -> Decoded:
        entry, path = self._splits[split], self.files(split)[0]
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"embedded images: {path} cannot be read ({error.strerror})", hint=_REINSTALL
            ) from error
        if sha256_bytes(raw) != entry["sha256"]:
            raise ArtifactError(
                f"embedded images: {path} does not have the recorded sha256", hint=_REINSTALL
            )
        channels, height, width = self._shape
        strip = np.array(Image.open(io.BytesIO(raw)))
        pixels = strip.reshape(entry["images"], height, width, channels)
        digits = np.frombuffer(entry["labels"].encode("ascii"), np.uint8)  # one an image
        return Decoded(pixels, digits.astype(np.int64) - ord("0"))

"""What a source of images is: files on disk that read as one labelled set a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from pipeline.config.schema import DataConfig


@dataclass(frozen=True)
class Decoded:
    """A split whose files hold plain pixels: `pixels` (N, H, W, C) uint8, `labels` (N,) int64."""

    pixels: np.ndarray
    labels: np.ndarray
    skipped: int = 0
    """Images left out because they could not be read."""


@dataclass(frozen=True)
class Encoded:
    """A split of image files (JPEG, PNG, …) that are decoded later: `read(i)` gives the bytes
    of image i.
    """

    read: Callable[[int], bytes]
    labels: np.ndarray
    """(N,) int64."""
    name: Callable[[int], str]
    """What to call image i in a message."""


class Source(ABC):
    """One folder of images in one layout. Opening it reads no pixels."""

    kind: ClassVar[str]
    about: ClassVar[str]
    classes: tuple[str, ...]
    label: str
    splits: tuple[str, ...]
    """`train` and `test`, and `search` where the data come with a validation split of their own."""

    @classmethod
    @abstractmethod
    def recognise(cls, root: Path) -> bool:
        """Whether `root` holds this layout; looks at names only."""

    @classmethod
    @abstractmethod
    def open(cls, root: Path | None, config: DataConfig) -> Source:
        """Index the files. Raises ArtifactError when they are partial or damaged."""

    @abstractmethod
    def files(self, split: str) -> tuple[Path, ...]:
        """Every file that the split is made of, in a fixed order; their content identifies the
        data.
        """

    @abstractmethod
    def read(self, split: str) -> Decoded | Encoded:
        """The images and labels of a split, in a fixed order."""


def guess_kind(path: Path) -> str:
    """What a file that cannot be parsed really is, for a message; empty when there is nothing
    to add.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        return error.strerror or "cannot be opened"
    if not head:
        return "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, the content was not fetched"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, probably an error page"
    return ""

"""What a source of images is: files on disk that read as one labelled set a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline.data.content import Decoded, Encoded
from pipeline.system import file_type

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig
    from pipeline.data.sources.public_sets import PublicSet


class Source(ABC):
    """One folder of images in one layout. Opening it reads no pixels.

    Attributes:
        kind: the layout's key in `SOURCES`.
        about: one sentence for people.
        label: what to call the data set beside a number measured on it.
        splits: `train` and `test`, and `search` where the data come with a validation split.
        public: the public set that was asked for by name, whose label a whole copy bears.
    """

    kind: ClassVar[str]
    about: ClassVar[str]
    classes: tuple[str, ...]
    label: str
    splits: tuple[str, ...]
    public: PublicSet | None = None

    @classmethod
    @abstractmethod
    def recognise(cls, root: Path) -> bool:
        """Whether `root` holds this layout; looks at names only."""

    @classmethod
    @abstractmethod
    def open(cls, root: Path | None, config: DataConfig) -> Source:
        """Index the files. Raises ArtifactError when they are partial or damaged."""

    def remarks(self) -> tuple[str, ...]:
        """Sentences for people on what was found; may look at every file's name again."""
        return ()

    @abstractmethod
    def files(self, split: str) -> tuple[Path, ...]:
        """Every file of the split, in a fixed order; their content identifies the data."""

    @abstractmethod
    def read(self, split: str) -> Decoded | Encoded:
        """The images and labels of a split, in a fixed order.

        Raises:
            ArtifactError: a file is missing or damaged.
        """


def guess_kind(path: Path) -> str:
    """What a file that cannot be parsed really is, for a message; empty where nothing is known."""
    try:
        with path.open("rb") as stream:
            kind = file_type(stream.read(4096))
    except OSError as error:
        return error.strerror or "cannot be opened"
    return _KINDS.get(kind, "")


_KINDS = {
    "an empty file": "the file is empty",
    "a git-lfs pointer": "it is a git-lfs pointer, the content was not fetched",
    "an HTML page": "it is an HTML page, probably an error page",
}

"""Class folders: `train/CLASS/*.jpg` beside `val/` or `test/`, or one folder of classes, split."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.content import Encoded
from pipeline.data.reading import read_file
from pipeline.data.sources.base import Source
from pipeline.errors import ArtifactError

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif"),
        *(".ppm", ".pgm", ".pnm", ".tif", ".tiff", ".gif"),
    }
)
_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation")
_TEST = ("test", "testing")
# what systems and tools leave behind; hidden folders besides
_NO_DATA = frozenset(
    {"@eadir", "__macosx", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini"}
)
TEST_SHARE = 0.2
"""Share of each class of a single folder that becomes its test split."""

Listing = list[tuple[Path, int]]  # (file, class index)


class Folders(Source):
    """A class is the name of a folder; its images may lie deeper.

    With `test/`, a `val/` is the search split; without, a `val/` is the best test split there is.
    """

    kind = "folders"
    about = (
        "one folder a class, below train/ and val/ or test/, "
        "or a single folder that is split for you"
    )

    def __init__(self, root: Path) -> None:
        self.label = f"{root.resolve().name} (class folders)"
        self._root, self._train = root, _named(root, _TRAIN)
        if self._train is not None:
            self.classes = _class_folders(self._train)
            self._listing = {"train": _list(self._train, self.classes)}
            for split, folder in _held_out(root).items():
                self._listing[split] = self._list_like_train(folder)
        else:
            self.classes = _class_folders(root)
            self._listing = divide(_list(root, self.classes), root)
        self.splits = tuple(self._listing)

    @classmethod
    def recognise(cls, root: Path) -> bool:
        base = _named(root, _TRAIN) or root
        return any(_is_image(file) for folder in _subfolders(base) for file in folder.iterdir())

    @classmethod
    def open(cls, root: Path | None, config: DataConfig) -> Folders:
        assert root is not None
        return cls(root)

    @property
    def divided(self) -> bool:
        """Whether it is one folder of classes, split by us."""
        return self._train is None

    def remarks(self) -> tuple[str, ...]:
        return _left_out(self._root)

    def files(self, split: str) -> tuple[Path, ...]:
        return tuple(path for path, _ in self._listing[split])

    def read(self, split: str) -> Encoded:
        paths = self.files(split)
        labels = np.array([label for _, label in self._listing[split]], np.int64)
        root = self._root
        return Encoded(
            read=lambda i: read_file(paths[i]),
            labels=labels,
            name=lambda i: str(paths[i].relative_to(root)),
        )

    def _list_like_train(self, folder: Path) -> Listing:
        unknown = sorted(set(_class_folders(folder)) - set(self.classes))
        if unknown:
            raise ArtifactError(
                f"{folder} has class {unknown[0]!r} that {self._train} does not have",
                hint="the folders of both must have the same names",
            )
        return _list(folder, self.classes)


def _held_out(root: Path) -> dict[str, Path]:
    """The folders beside `train/`, by split."""
    validation, test = _named(root, _VALIDATION), _named(root, _TEST)
    found = {} if test is None else {"test": test}
    if validation is not None:
        found["search" if found else "test"] = validation
    return found


def _named(root: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of a split, in whatever letters: `train`, `Train` or `TRAIN`."""
    found = [folder for folder in _subfolders(root) if folder.name.lower() in names]
    return min(found, key=lambda f: (names.index(f.name.lower()), f.name), default=None)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_no_data(p.name))


def _is_no_data(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NO_DATA


def _below(folder: Path) -> Iterator[Path]:
    """Everything below `folder` that may be data; folders only if they are called like images."""
    for at, folders, files in os.walk(folder):
        kept = [name for name in folders if not _is_no_data(name)]
        folders[:] = [name for name in kept if not _is_image(Path(name))]
        named = [name for name in files if not _is_no_data(name)]
        yield from (Path(at, name) for name in (*named, *kept) if name not in folders)


def _left_out(root: Path) -> tuple[str, ...]:
    """What lies among the images and is not read, by suffix, with an example."""
    # sorted: a disk lists them in any order
    others = sorted(path for path in _below(root) if not _is_image(path) and path.parent != root)
    suffixes = Counter(path.suffix.lower() or "without a suffix" for path in others)
    if not others:
        return ()
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(3))
    return (f"left out, by their suffix: {kinds}, such as {others[0].relative_to(root)}",)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _class_folders(folder: Path) -> tuple[str, ...]:
    return tuple(p.name for p in _subfolders(folder))


def _list(folder: Path, classes: tuple[str, ...]) -> Listing:
    """Image files below each class folder, sorted by class and path.

    Raises:
        ArtifactError: a class has none.
    """
    listing: Listing = []
    for k, name in enumerate(classes):
        files = sorted(filter(_is_image, _below(folder / name)))
        if not files:
            raise ArtifactError(
                f"class {name!r} has no images in {folder}",
                hint="add images of this class, or remove its folder",
            )
        listing += [(path, k) for path in files]
    return listing


def divide(listing: Listing, root: Path) -> dict[str, Listing]:
    """A fixed fifth of each class as test, chosen by the hash of the path relative to `root`.

    It depends on no seed, so that every run has the same test images, and adding a file moves few
    others.
    """
    parts: dict[str, Listing] = {"train": [], "test": []}
    for k in sorted({label for _, label in listing}):
        mine = sorted((path for path, label in listing if label == k), key=partial(_rank, root))
        cut = max(1, round(TEST_SHARE * len(mine)))
        parts["test"] += [(path, k) for path in sorted(mine[:cut])]
        parts["train"] += [(path, k) for path in sorted(mine[cut:])]
    return parts


def _rank(root: Path, path: Path) -> bytes:
    name = path.relative_to(root).as_posix()
    # A name on disk need not be valid text in any encoding.
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()

"""One folder of pictures, with `labels.csv` beside them that says what each shows."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.content import Encoded
from pipeline.data.reading import read_file
from pipeline.data.sources.base import Source
from pipeline.data.sources.folders import Listing, divide
from pipeline.errors import ArtifactError

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

LIST = "labels.csv"
_LARGEST_LIST = 256 << 20  # bytes: more than ImageNet's list has by far
_COLUMNS = ("file", "label")
_SPLITS = ("train", "search", "test")
_FORM = f"{LIST} has the columns file and label, and may have split: {', '.join(_SPLITS)}"
Row = tuple[str, str, str]  # file, label, split


class Listed(Source):
    """Files are named relative to the folder, and may lie deeper. Without a column `split`, a fixed
    fifth of each class is test.
    """

    kind = "listed"
    about = f"one folder of pictures and {LIST}, with the columns file and label (and split)"

    def __init__(self, root: Path) -> None:
        self.label = f"{root.resolve().name} ({LIST})"
        self._root = root
        rows = _rows(root / LIST)
        self.classes = tuple(sorted({label for _, label, _ in rows}))
        self._listing = self._by_split(rows)
        self.splits = tuple(split for split in _SPLITS if self._listing.get(split))

    @classmethod
    def recognise(cls, root: Path) -> bool:
        return (root / LIST).is_file()

    @classmethod
    def open(cls, root: Path | None, config: DataConfig) -> Listed:
        assert root is not None
        return cls(root)

    def files(self, split: str) -> tuple[Path, ...]:
        return tuple(path for path, _ in self._listing[split])

    def read(self, split: str) -> Encoded:
        paths, root = self.files(split), self._root
        return Encoded(
            read=lambda i: read_file(paths[i]),
            labels=np.array([label for _, label in self._listing[split]], np.int64),
            name=lambda i: str(paths[i].relative_to(root)),
        )

    def _by_split(self, rows: list[Row]) -> dict[str, Listing]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        listing = [(self._root / file, numbers[label]) for file, label, _ in rows]
        if not any(split for _, _, split in rows):
            return divide(listing, self._root)
        found: dict[str, Listing] = {split: [] for split in _SPLITS}
        for item, (file, _, split) in zip(listing, rows, strict=True):
            if split not in found:
                raise ArtifactError(f"{self._root / LIST}: {file}: split {split!r}", hint=_FORM)
            found[split].append(item)
        return found


def _rows(path: Path) -> list[Row]:
    """Every row, in the order of the files' names.

    Raises:
        ArtifactError: no table of this form; a file is named twice, not there, or outside.
    """
    try:
        text = read_file(path, _LARGEST_LIST).decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise ArtifactError(f"{path}: there is no column {missing[0]}", hint=_FORM)
        rows = [_row(path, table.line_num, row) for row in table]
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{path}: not a readable table: {error}", hint=_FORM) from None
    if not rows:
        raise ArtifactError(f"{path}: names no file", hint=_FORM)
    rows.sort()
    for (file, *_), (other, *_) in pairwise(rows):
        if file == other:
            raise ArtifactError(f"{path}: {file} is named twice", hint="leave one of the lines out")
    return rows


def _row(path: Path, line: int, row: dict[str, str | None]) -> Row:
    file, label, split = ((row.get(key) or "").strip() for key in (*_COLUMNS, "split"))
    if not file or not label:
        raise ArtifactError(f"{path}:{line}: no {'label' if file else 'file'}", hint=_FORM)
    inside = Path(file)
    if inside.is_absolute() or ".." in inside.parts or not (path.parent / inside).is_file():
        where = f"{path}:{line}: {file}: no such file in {path.parent}"
        raise ArtifactError(where, hint="names are relative to the folder of labels.csv")
    return inside.as_posix(), label, split

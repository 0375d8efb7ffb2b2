"""Hub-style parquet: `image: struct<bytes, path>`, an integer label, class names in the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.content import Encoded
from pipeline.data.sources.base import Source, guess_kind
from pipeline.errors import ArtifactError

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.config.data import DataConfig

_SPLITS = {
    "train": "train",
    "test": "test",
    "validation": "search",
    "valid": "search",
    "val": "search",
}
_SHARD = re.compile(
    r"^(?P<split>[a-z]+)(?:-(?P<index>\d{5})-of-(?P<total>\d{5})(?:-[0-9a-f]+)?)?\.parquet$"
)
_LABELS = ("label", "fine_label", "labels", "target")


class Parquet(Source):
    """Image bytes and labels in columns. Without `test`, a validation split is the test split."""

    kind = "parquet"
    about = (
        "Hub-style parquet files `train-*.parquet`, `test-*.parquet` with image bytes and labels"
    )

    def __init__(self, root: Path) -> None:
        self.label = f"{root.resolve().name} (parquet)"
        self._shards = _shards(root)
        if "train" not in self._shards:
            raise ArtifactError(
                f"{root}: there is no train split", hint="expected train-00000-of-0000N.parquet"
            )
        if "test" not in self._shards and "search" in self._shards:
            self._shards["test"] = self._shards.pop("search")
        self.splits = tuple(sorted(self._shards, key=("train", "search", "test").index))
        schema = _schema(self._shards["train"][0])
        self._image, self._target = _columns(schema, self._shards["train"][0])
        self.classes = _class_names(schema, self._target) or self._numbered()

    @classmethod
    def recognise(cls, root: Path) -> bool:
        return bool(_parquet_files(root))

    @classmethod
    def open(cls, root: Path | None, config: DataConfig) -> Parquet:
        assert root is not None
        return cls(root)

    def files(self, split: str) -> tuple[Path, ...]:
        return self._shards[split]

    def read(self, split: str) -> Encoded:
        labels = self._labels(split)
        # stays in Arrow's memory; one image at a time is made into bytes
        raw = self._column(split, self._image).combine_chunks().field("bytes")
        return Encoded(
            read=lambda i: raw[i].as_py() or b"",
            labels=labels,
            name=lambda i: f"{split} row {i}",
        )

    def _column(self, split: str, name: str) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = []
        for path in self._shards[split]:
            try:
                parts.append(pq.read_table(path, columns=[name]).column(name))
            except (pa.ArrowException, OSError, KeyError) as error:
                raise _unreadable(path, error) from error
        return pa.chunked_array(
            [chunk for part in parts for chunk in part.chunks], type=parts[0].type
        )

    def _labels(self, split: str) -> np.ndarray:
        labels = self._column(split, self._target)
        if labels.null_count:
            raise ArtifactError(
                f"{self.label}: {labels.null_count} {split} rows have no {self._target}"
            )
        return labels.to_numpy().astype(np.int64)

    def _numbered(self) -> tuple[str, ...]:
        labels = self._labels("train")
        highest = int(labels.max(initial=0))
        if highest >= max(1, len(labels)):  # before a name is made for each
            raise ArtifactError(
                f"{self.label}: labels go up to {highest}, and there are {len(labels)} images",
                hint="label the classes 0, 1, 2 … without gaps",
            )
        return tuple(str(k) for k in range(highest + 1))


def _parquet_files(root: Path) -> list[tuple[Path, re.Match[str]]]:
    """Files with a split's name, and the parts of the name; in order."""
    paths = sorted(p for folder in (root, root / "data") for p in folder.glob("*.parquet"))
    files = [path for path in paths if path.is_file()]  # Arrow would wait for a FIFO's writer
    return [(path, match) for path in files if (match := _SHARD.match(path.name))]


def _shards(root: Path) -> dict[str, tuple[Path, ...]]:
    """Files of each split; raises ArtifactError when `-of-N` says that some are missing."""
    found: dict[str, list[tuple[Path, re.Match[str]]]] = {}
    for path, match in _parquet_files(root):
        split = _SPLITS.get(match["split"])
        if split is not None:
            found.setdefault(split, []).append((path, match))
    for files in found.values():
        _check_complete(root, [match for _, match in files if match["total"]])
    return {split: tuple(path for path, _ in files) for split, files in found.items()}


def _check_complete(root: Path, numbered: list[re.Match[str]]) -> None:
    if not numbered:
        return
    total = int(numbered[0]["total"])
    gone = sorted(set(range(total)) - {int(match["index"]) for match in numbered})
    if gone:
        raise ArtifactError(
            f"{root}: {len(gone)} of {total} {numbered[0]['split']} files are missing, "
            f"first number {gone[0]:05d}",
            hint="fetch the missing parquet files into the same folder",
        )


def _schema(path: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    reason = str(error).splitlines()[0]
    return ArtifactError(
        f"{path} is not a readable parquet file: {guess_kind(path) or reason}",
        hint="fetch it again",
    )


def _columns(schema: pa.Schema, path: Path) -> tuple[str, str]:
    """Names of the image and the label column."""
    import pyarrow as pa

    images = [
        f.name
        for f in schema
        if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0
    ]
    numbers = [f.name for f in schema if pa.types.is_integer(f.type)]
    named = [name for name in _LABELS if name in numbers]
    if not images or not (named or len(numbers) == 1):
        raise ArtifactError(
            f"{path} has columns {', '.join(schema.names)}; "
            "expected an image struct<bytes, path> and an integer label"
        )
    return images[0], (named or numbers)[0]


def _class_names(schema: pa.Schema, target: str) -> tuple[str, ...]:
    """Names in the `huggingface` entry of the schema's metadata; empty when it has none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[target]["names"])
    except (KeyError, TypeError, ValueError):
        return ()

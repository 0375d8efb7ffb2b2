"""Tiny data sets in every layout, made of solid colours so that the right pixels are known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for every test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "rlp" / "data"


def colour(label: int, k: int) -> tuple[int, int, int]:
    """Red tells the class, green the number of the image."""
    return (80 * label + 10, 3 * k, 128)


def picture(label: int, k: int, size: tuple[int, int] = (8, 8), fmt: str = "PNG") -> bytes:
    """An encoded image of one colour; `size` is (width, height)."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour(label, k)).save(stream, fmt, **({"quality": 75} if fmt == "JPEG" else {}))
    return stream.getvalue()


def write_parquet(
    path: Path,
    rows: list[tuple[bytes | None, int | None]],
    names: tuple[str, ...] | None = CLASSES,
    label_column: str = "label",
) -> None:
    """A Hub-style file with one image and label a row."""
    images = pa.array(
        [{"bytes": raw, "path": None} for raw, _ in rows], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    table = pa.table({"image": images, label_column: pa.array([label for _, label in rows], pa.int64())})
    if names is not None:
        features = {"image": {"_type": "Image"}, label_column: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def rows(count: int, **kwargs: object) -> list[tuple[bytes | None, int | None]]:
    """`count` images, classes in turn."""
    return [(picture(i % 3, i, **kwargs), i % 3) for i in range(count)]  # type: ignore[arg-type]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """30 train and 6 test images."""
    root = tmp_path / "animals"
    write_parquet(root / "train-00000-of-00001.parquet", rows(30))
    write_parquet(root / "test-00000-of-00001.parquet", rows(6))
    return root


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., Path]:
    """Makes class folders: `folders("train", "val", each=5, size=(8, 8))`; no split name = a single folder."""

    def make(*splits: str, each: int = 5, size: tuple[int, int] = (8, 8), fmt: str = "PNG") -> Path:
        root = tmp_path / "photos"
        for base in [root / split for split in splits] or [root]:
            for label, name in enumerate(CLASSES):
                (base / name).mkdir(parents=True)
                for k in range(each):
                    (base / name / f"{k}.{fmt.lower()}").write_bytes(picture(label, k, size, fmt))
        return root

    return make


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())

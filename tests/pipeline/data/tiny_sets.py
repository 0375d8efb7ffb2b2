"""Tiny data sets in every layout, made of solid colours so that the right pixels are known."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.data import Images

CLASSES = ("cat", "dog", "owl")


def colour(label: int, k: int) -> tuple[int, int, int]:
    """Red tells the class, green the number of the image."""
    return (80 * label + 10, 3 * k, 128)


def picture(label: int, k: int, size: tuple[int, int] = (8, 8), fmt: str = "PNG") -> bytes:
    """An encoded image of one colour; `size` is (width, height)."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour(label, k)).save(
        stream, fmt, **({"quality": 75} if fmt == "JPEG" else {})
    )
    return stream.getvalue()


def write_parquet(
    path: Path,
    rows: list[tuple[bytes | None, int | None]],
    names: tuple[str, ...] | None = CLASSES,
    label_column: str = "label",
) -> None:
    """A Hub-style file with one image and label a row."""
    images = pa.array(
        [{"bytes": raw, "path": None} for raw, _ in rows],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    table = pa.table(
        {"image": images, label_column: pa.array([label for _, label in rows], pa.int64())}
    )
    if names is not None:
        features = {
            "image": {"_type": "Image"},
            label_column: {"names": list(names), "_type": "ClassLabel"},
        }
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def rows(count: int, **kwargs: object) -> list[tuple[bytes | None, int | None]]:
    """`count` images, classes in turn."""
    return [(picture(i % 3, i, **kwargs), i % 3) for i in range(count)]  # type: ignore[arg-type]


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_cifar_binary(
    root: Path,
    each: int = 6,
    records: list[tuple[np.ndarray, int]] | None = None,
    names: tuple[str, ...] = CLASSES,
) -> np.ndarray:
    """CIFAR-10's binary layout, `each` records a file; returns the first one's pixels (3, 32, 32).

    Pixels are noise and labels go in turn, unless `records` (6 · `each` of ((3, 32, 32) uint8,
    label)) are given.
    """
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    first = None
    for k, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        pixels = generator.integers(0, 256, (each, 3072), np.uint8)
        labels = np.arange(each, dtype=np.uint8)[:, None] % 3
        if records is not None:
            part = records[k * each : (k + 1) * each]
            pixels = np.stack([image.reshape(3072) for image, _ in part])
            labels = np.array([[label] for _, label in part], np.uint8)
        (folder / name).write_bytes(np.concatenate([labels, pixels], axis=1).tobytes())
        first = pixels[0] if first is None else first
    (folder / "batches.meta.txt").write_text(
        "\n".join(name.replace(" ", "_") for name in names) + "\n\n"
    )
    assert first is not None
    return first.reshape(3, 32, 32)


def write_cifar_python(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: int = 2,
    each: int = 1200,
    records: list[tuple[np.ndarray, int]] | None = None,
    names: tuple[str, ...] = CLASSES,
) -> np.ndarray:
    """CIFAR-10's Python layout, its md5 sums made the official ones; returns data_batch_1's pixels.

    `records` as in `write_cifar_binary`.
    """
    from pipeline.torchvision_import import import_torchvision

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    sums, kept = {}, None
    for turn, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels = generator.integers(0, 256, (each, 3072), np.uint8)
        labels = [k % 3 for k in range(each)]
        if records is not None:
            part = records[turn * each : (turn + 1) * each]
            pixels, labels = (
                np.stack([image.reshape(3072) for image, _ in part]),
                [label for _, label in part],
            )
        content = {
            "batch_label": name,
            "labels": labels,
            "data": pixels,
            "filenames": ["a.png"] * each,
        }
        raw = pickle.dumps(content, protocol=protocol)
        (folder / name).write_bytes(raw)
        sums[name] = hashlib.md5(raw).hexdigest()
        kept = pixels if kept is None else kept
    meta = pickle.dumps(
        {"num_cases": each, "label_names": list(names), "num_vis": 3072}, protocol=0
    )
    (folder / "batches.meta").write_bytes(meta)
    official = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(
        official, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)]
    )
    monkeypatch.setattr(official, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": hashlib.md5(meta).hexdigest()})
    assert kept is not None
    return kept.reshape(-1, 3, 32, 32)


def pixels_of(images: Images) -> torch.Tensor:
    """(N, C, H, W) uint8, the normalisation undone."""
    x = torch.cat([x for x, _ in images.batches(64)])
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (images.mean, images.std))
    return ((x * std + mean) * 255).round().to(torch.uint8)


def assert_colours_belong_to_labels(images: Images) -> None:
    red = pixels_of(images)[:, 0, 0, 0].tolist()
    assert red == [colour(label, 0)[0] for label in images.labels.tolist()]

"""A few dozen of the embedded images in every layout that can be read, and a network for them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import write_cifar_binary, write_cifar_python, write_idx, write_parquet
from torch import nn

from pipeline.config.data import DataConfig
from pipeline.data.sources.embedded import Embedded

TRAIN, TEST = 50, 10
"""Images of each split; ten classes in turn."""

Pairs = list[tuple[np.ndarray, int]]
"""(28, 28) uint8 and its class."""
Writer = Callable[[Path, pytest.MonkeyPatch], None]


def net(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> nn.Sequential:
    """Two convolutions and a linear layer; traced, cut and exported in no time."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


def real_images(split: str, count: int) -> Pairs:
    """The first `count // 10` images of each class, classes in turn."""
    embedded = Embedded.open(None, DataConfig(source="embedded")).read(split)
    rows = np.stack(
        [np.flatnonzero(embedded.labels == k)[: count // 10] for k in range(10)], axis=1
    ).reshape(-1)
    return [(embedded.pixels[row, :, :, 0], int(embedded.labels[row])) for row in rows]


def names() -> tuple[str, ...]:
    return Embedded.open(None, DataConfig(source="embedded")).classes


def encode(pixels: np.ndarray, fmt: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, fmt, **({"quality": 90} if fmt == "JPEG" else {}))
    return stream.getvalue()


def _colour_32(pairs: Pairs) -> Pairs:
    """As CIFAR has them: (3, 32, 32), the grey image tinted and framed."""
    framed = [np.pad(pixels, 2) for pixels, _ in pairs]
    tinted = [np.stack([pixels, pixels // 2, 255 - pixels]) for pixels in framed]
    return [(pixels, label) for pixels, (_, label) in zip(tinted, pairs, strict=True)]


def cifar_binary(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _colour_32(real_images("train", TRAIN) + real_images("test", TEST))
    write_cifar_binary(root, TEST, records, names())


def cifar_python(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _colour_32(real_images("train", TRAIN) + real_images("test", TEST))
    write_cifar_python(root, monkeypatch, each=TEST, records=records, names=names())


def idx(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, prefix, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        pairs = real_images(split, count)
        raw = root / "FashionMNIST" / "raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte", np.stack([pixels for pixels, _ in pairs]))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.array([label for _, label in pairs]))


def folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """train/, val/ and test/."""
    for folder, split, count in (
        ("train", "train", TRAIN),
        ("val", "test", TEST),
        ("test", "test", TEST),
    ):
        _class_folders(root / folder, real_images(split, count))


def single_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _class_folders(root, real_images("train", TRAIN + TEST), "JPEG")


def parquet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", TRAIN), ("test", TEST)):
        rows = [(encode(pixels, "JPEG"), label) for pixels, label in real_images(split, count)]
        write_parquet(root / f"{split}-00000-of-00001.parquet", rows, names())


def _class_folders(base: Path, pairs: Pairs, fmt: str = "PNG") -> None:
    for index, (pixels, label) in enumerate(pairs):
        folder = base / names()[label].replace("/", " or ")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:03}.{fmt.lower()}").write_bytes(encode(pixels, fmt))


def listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["file,label,split"]
    for split, count in (("train", TRAIN), ("test", TEST)):
        for index, (pixels, label) in enumerate(real_images(split, count)):
            name = f"{split}{index:03}.png"
            root.mkdir(exist_ok=True)
            (root / name).write_bytes(encode(pixels, "PNG"))
            lines.append(f"{name},{names()[label]},{split}")
    (root / "labels.csv").write_text("\n".join(lines))


WRITERS: dict[str, Writer] = {
    "listed": listed,
    "cifar-binary": cifar_binary,
    "cifar-python": cifar_python,
    "idx": idx,
    "folders": folders,
    "single folder": single_folder,
    "parquet": parquet,
}

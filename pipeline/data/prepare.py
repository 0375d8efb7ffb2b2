"""Every split of a source, checked, with its card: pixels in memory when they are small, else
good rows to stream.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import PIL
import torch

from pipeline.data import cache
from pipeline.data.card import DataCard
from pipeline.data.decode import Survey, decode_all, resize_all, survey, try_decode
from pipeline.data.hashing import sha256_bytes, sha256_files
from pipeline.data.images import channel_statistics
from pipeline.data.sources import Decoded, Encoded, Source
from pipeline.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from pipeline.config.schema import DataConfig

LARGEST_HELD = 96
"""Height or width in pixels up to which images are held decoded in memory."""
FULL_CHECK = 20_000
"""Streamed images of a split up to which each is decoded once to know that it can be."""
STATISTICS = 1_000
"""Streamed images whose pixels give mean and std, spread evenly over the train split."""
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Part:
    """One split: either `pixels`, or `encoded` with the `good` rows of it; `labels` (N,) int64
    of the good ones.
    """

    labels: np.ndarray
    pixels: np.ndarray | None = None
    encoded: Encoded | None = None
    good: np.ndarray | None = None


@dataclass(frozen=True)
class Prepared:
    card: DataCard
    parts: dict[str, Part]


def prepare(source: Source, config: DataConfig) -> Prepared:
    """Check and decode every split of `source`. Raises ArtifactError or UsageError."""
    for split in ("train", "test"):
        if split not in source.splits:
            raise ArtifactError(
                f"{source.label}: there is no {split} split",
                hint=f"it has {', '.join(source.splits)}",
            )
    raw = {split: source.read(split) for split in source.splits}
    for split, part in raw.items():
        _check_labels(part.labels, split, source)
    identities = _identities(source, {split: part.labels for split, part in raw.items()})
    encoded = {split: part for split, part in raw.items() if isinstance(part, Encoded)}
    if encoded:
        card, parts = _prepare_encoded(source, encoded, identities, config)
    else:
        decoded = {split: part for split, part in raw.items() if isinstance(part, Decoded)}
        card, parts = _prepare_decoded(source, decoded, identities, config)
    return Prepared(_with_settings(card, config), parts)


def _check_labels(labels: np.ndarray, split: str, source: Source) -> None:
    if not len(labels):
        raise ArtifactError(
            f"{source.label}: the {split} split is empty", hint="fetch the data set again"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(source.classes)))
    if len(outside):
        row = int(outside[0])
        raise ArtifactError(
            f"{source.label}: {len(outside)} labels of {split} are out of range (0 … {len(source.classes) - 1}),"
            f" the first is {labels[row]} in row {row}",
            hint="correct the labels, or the class names in the file's metadata",
        )
    _check_classes(labels, split, source.label, source.classes)


def _check_classes(labels: np.ndarray, split: str, label: str, classes: tuple[str, ...]) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(empty):
        raise ArtifactError(
            f"{label}: class {classes[int(empty[0])]!r} has no image in {split}"
            + (f", nor have {len(empty) - 1} others" if len(empty) > 1 else ""),
            hint="add images of this class, or remove it from the class names",
        )


def _identities(source: Source, labels: dict[str, np.ndarray]) -> dict[str, str]:
    """sha256 of each split: class names, labels, files."""
    hashes = {}
    for split in source.splits:
        whole = hashlib.sha256(json.dumps(source.classes).encode())
        whole.update(labels[split].astype("<i8").tobytes())
        whole.update(sha256_files(source.files(split)).encode())
        hashes[split] = whole.hexdigest()
    return hashes


def _whole(identities: dict[str, str]) -> str:
    return sha256_bytes(json.dumps(identities, sort_keys=True).encode())


def _counts(labels: np.ndarray, classes: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(np.bincount(labels, minlength=len(classes)).tolist())


def _prepare_decoded(
    source: Source, raw: dict[str, Decoded], identities: dict[str, str], config: DataConfig
) -> tuple[DataCard, dict[str, Part]]:
    total = sum(len(part.labels) for part in raw.values())
    stored = raw["train"].pixels.shape[1:3]
    channels = raw["train"].pixels.shape[3]
    height, width = (
        (config.image_size, config.image_size) if config.image_size is not None else stored
    )
    megabytes = total * height * width * channels / 1e6
    if megabytes > config.in_memory_mb:
        raise UsageError(
            f"data.in_memory_mb: {source.label} at {height}×{width} takes {megabytes:,.0f} MB",
            hint="set a smaller data.image_size, or allow more with data.in_memory_mb",
        )
    pixels = {split: resize_all(part.pixels, height, width) for split, part in raw.items()}
    mean, std = channel_statistics(torch.from_numpy(pixels["train"]))
    card = DataCard(
        source=source.kind,
        label=source.label,
        classes=source.classes,
        image_shape=(channels, height, width),
        counts={split: _counts(part.labels, source.classes) for split, part in raw.items()},
        mean=mean,
        std=std,
        sha256=_whole(identities),
        split_sha256=identities,
        skipped={split: part.skipped for split, part in raw.items()},
        encodings={"lossless": total},
        sizes={f"{stored[0]}×{stored[1]}": total},
    )
    return card, {split: Part(part.labels, pixels=pixels[split]) for split, part in raw.items()}


def _prepare_encoded(
    source: Source, raw: dict[str, Encoded], identities: dict[str, str], config: DataConfig
) -> tuple[DataCard, dict[str, Part]]:
    settings = [_CACHE_VERSION, PIL.__version__, identities, config.image_size, config.in_memory_mb]
    key = sha256_bytes(json.dumps(settings).encode())
    found = cache.load(key) if config.cache else None
    if found is not None:
        card, arrays = DataCard.from_dict(found[0]), found[1]
        card = replace(card, source=source.kind, label=_label(source, Counter(card.encodings)))
    else:
        card, arrays = _decode_splits(source, raw, identities, config)
        if config.cache:
            cache.save(key, card.to_dict(), arrays)
    _check_skipped(card, config.max_corrupt)
    parts = {}
    for split, images in raw.items():
        good = arrays[f"{split}-good"]
        pixels = arrays.get(f"{split}-pixels")
        parts[split] = Part(
            images.labels[good], pixels, None if pixels is not None else images, np.array(good)
        )
        _check_classes(parts[split].labels, split, source.label, source.classes)
    return card, parts


def _decode_splits(
    source: Source, raw: dict[str, Encoded], identities: dict[str, str], config: DataConfig
) -> tuple[DataCard, dict[str, np.ndarray]]:
    surveys = {split: survey(images) for split, images in raw.items()}
    sizes = sum((s.sizes for s in surveys.values()), Counter())
    encodings = sum((s.encodings for s in surveys.values()), Counter())
    height, width = _shape(source, sizes, config.image_size)
    grey = all(s.grey for s in surveys.values())
    count = sum(len(images.labels) for images in raw.values())
    held = max(height, width) <= LARGEST_HELD
    held &= count * height * width * (1 if grey else 3) <= config.in_memory_mb * 1e6
    arrays: dict[str, np.ndarray] = {}
    for split, images in raw.items():
        if held:
            pixels, good = decode_all(
                images, grey=grey, shape=(height, width), size=config.image_size
            )
            arrays[f"{split}-pixels"] = pixels
        else:
            good = _readable(images, surveys[split], grey, height)
        arrays[f"{split}-good"] = good
    sample = (
        arrays["train-pixels"]
        if held
        else _sample(raw["train"], arrays["train-good"], grey, height)
    )
    mean, std = channel_statistics(torch.from_numpy(sample))
    card = DataCard(
        source=source.kind,
        label=_label(source, encodings),
        classes=source.classes,
        image_shape=(1 if grey else 3, height, width),
        counts={
            s: _counts(images.labels[arrays[f"{s}-good"]], source.classes)
            for s, images in raw.items()
        },
        mean=mean,
        std=std,
        sha256=_whole(identities),
        split_sha256=identities,
        skipped={s: len(images.labels) - len(arrays[f"{s}-good"]) for s, images in raw.items()},
        encodings=dict(encodings.most_common()),
        sizes={f"{h}×{w}": n for (h, w), n in sizes.most_common(20)},
    )
    return card, arrays


def _shape(
    source: Source, sizes: Counter[tuple[int, int]], image_size: int | None
) -> tuple[int, int]:
    """Height and width that the network sees. Raises UsageError when the images differ and no
    size is set.
    """
    if image_size is not None:
        return image_size, image_size
    if not sizes:
        raise ArtifactError(
            f"{source.label}: not one image can be read",
            hint="look at the files, or fetch them again",
        )
    if len(sizes) > 1:
        low, high = min(sizes), max(sizes)
        raise UsageError(
            f"data.image_size is not set and the images of {source.label} have {len(sizes)} sizes,"
            f" from {low[0]}×{low[1]} to {high[0]}×{high[1]}",
            hint="--set data.image_size=224 resizes and crops them",
        )
    (height, width) = next(iter(sizes))
    if max(height, width) > LARGEST_HELD and height != width:
        raise UsageError(
            f"data.image_size is not set and the images of {source.label} are {height}×{width}, not square",
            hint="--set data.image_size=224 resizes and crops them",
        )
    return height, width


def _readable(images: Encoded, found: Survey, grey: bool, size: int) -> np.ndarray:
    """Rows that can be streamed: decoded once where they are few enough, else by their headers."""
    good = np.setdiff1d(np.arange(len(images.labels)), np.array(found.bad, np.int64))
    if len(good) > FULL_CHECK:
        return good
    return np.array(
        [i for i in good if try_decode(images, int(i), grey=grey, size=size) is not None], np.int64
    )


def _sample(images: Encoded, good: np.ndarray, grey: bool, size: int) -> np.ndarray:
    rows = good[np.linspace(0, len(good) - 1, min(STATISTICS, len(good))).round().astype(np.int64)]
    arrays = [try_decode(images, int(i), grey=grey, size=size) for i in rows]
    return np.stack([array for array in arrays if array is not None])


def _label(source: Source, encodings: Counter[str]) -> str:
    """The source's label, with the encoding where it is lossy and (nearly) all images have it."""
    if not encodings:
        return source.label
    name, count = encodings.most_common(1)[0]
    if not name.startswith("JPEG") or count < 0.99 * encodings.total():
        return source.label
    return (
        source.label[:-1] + f", {name})"
        if source.label.endswith(")")
        else f"{source.label} ({name})"
    )


def _check_skipped(card: DataCard, cap: float) -> None:
    for split, skipped in card.skipped.items():
        total = skipped + card.images[split]
        if skipped > cap * total:
            raise ArtifactError(
                f"{card.label}: {skipped} of {total} {split} images cannot be read, more than the {cap:.1%} allowed",
                hint="fetch the images again, or raise data.max_corrupt",
            )


def _with_settings(card: DataCard, config: DataConfig) -> DataCard:
    """The card with the label, mean and std that the config gives."""
    for name in ("mean", "std"):
        given = getattr(config, name)
        if given is not None and len(given) != card.in_channels:
            raise UsageError(
                f"data.{name} has {len(given)} numbers, the images have {card.in_channels} channel(s)"
            )
    if config.std is not None and min(config.std) <= 0:
        raise UsageError("data.std must be positive")
    label, mean, std = config.label or card.label, config.mean or card.mean, config.std or card.std
    return replace(card, label=label, mean=mean, std=std)

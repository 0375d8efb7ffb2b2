"""Sets of image files (JPEG, PNG, …): decoded into memory when they are small, else streamed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import PIL
import torch

from pipeline.data import cache
from pipeline.data.card import DataCard
from pipeline.data.content import Encoded
from pipeline.data.decode import Survey, decode_all, survey, try_decode
from pipeline.data.hashing import sha256_bytes
from pipeline.data.images import channel_statistics
from pipeline.data.overlap import overlaps
from pipeline.data.parts import Part, check_classes, class_counts, whole_identity
from pipeline.data.sources.base import Source
from pipeline.errors import ArtifactError, Hint, Key, UsageError
from pipeline.preprocessing import VERSION, Fit
from pipeline.words import as_text, count_of, first_three

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

LARGEST_HELD = 96
"""Height or width in pixels up to which images are held decoded in memory."""
USUAL_SIZE = 224
"""Height and width in pixels that classifiers of photographs are made for."""
FULL_CHECK = 20_000
"""Streamed images of a split up to which each is decoded once to know that it can be."""
STATISTICS = 1_000
"""Streamed images whose pixels give mean and std, spread evenly over the train split."""
_CACHE_VERSION = 2
_RESIZE = Hint.set("data.image_size", USUAL_SIZE, "resizes and crops them")


class SizesDiffer(UsageError):
    """No size is set, and the images have none in common that they can be shown at."""


def prepare_encoded(
    source: Source, raw: dict[str, Encoded], identities: dict[str, str], config: DataConfig
) -> tuple[DataCard, dict[str, Part]]:
    """Card and parts of all splits, from the cache of decoded images where they are known.

    Raises:
        ArtifactError: more images than `config.max_corrupt` allows cannot be read.
        UsageError: the images differ in size and no size is set.
    """
    # Another release of Pillow may decode a JPEG to other pixels.
    decoded = [_CACHE_VERSION, VERSION, PIL.__version__, config.resize, config.channels]
    settings = [*decoded, identities, config.image_size, config.in_memory_mb]
    key = sha256_bytes(json.dumps(settings).encode())
    found = cache.load(key) if config.cache else None
    if found is not None:
        card, arrays = DataCard.from_dict(found[0]), found[1]
        # The same content may lie elsewhere now, under another name.
        card = replace(card, source=source.kind, label=_label(source, Counter(card.encodings)))
    else:
        card, arrays = _decode_splits(source, raw, identities, config)
        if config.cache:
            cache.save(key, card.to_dict(), arrays)
    skipped = {split: _skipped(images, arrays[f"{split}-good"]) for split, images in raw.items()}
    _check_skipped(card, skipped, config.max_corrupt)
    remarks = map(as_text, (*source.remarks(), *card.remarks, *_remarks(skipped)))
    card = replace(card, remarks=tuple(remarks))
    parts = {split: _part(images, split, arrays) for split, images in raw.items()}
    for split, part in parts.items():
        check_classes(part.labels, split, source)
    return card, parts


def _part(images: Encoded, split: str, arrays: Mapping[str, np.ndarray]) -> Part:
    good, pixels = arrays[f"{split}-good"], arrays.get(f"{split}-pixels")
    encoded = images if pixels is None else None  # held images need their files no more
    return Part(images.labels[good], pixels, encoded, np.array(good))


@dataclass(frozen=True)
class _Layout:
    """How the images of all splits will be seen.

    Attributes:
        held: decoded in memory; else streamed.
        resized: whether images are brought to that size; else they all have it.
        resize: how.
    """

    height: int
    width: int
    grey: bool
    held: bool
    resized: bool
    resize: str

    @property
    def fit(self) -> Fit:
        return Fit(self.height, self.width, self.resize)


def _decode_splits(
    source: Source, raw: dict[str, Encoded], identities: dict[str, str], config: DataConfig
) -> tuple[DataCard, dict[str, np.ndarray]]:
    """The card, and by split what can be read: `<split>-good` and, if held, `<split>-pixels`."""
    surveys = {split: survey(images) for split, images in raw.items()}
    sizes = sum((s.sizes for s in surveys.values()), Counter())
    encodings = sum((s.encodings for s in surveys.values()), Counter())
    layout = _layout(source, raw, surveys, sizes, config)
    arrays: dict[str, np.ndarray] = {}
    for split, images in raw.items():
        arrays |= _decoded(images, split, surveys[split], layout)
    mean, std = channel_statistics(torch.from_numpy(_sample(raw["train"], arrays, layout)))
    good = {split: arrays[f"{split}-good"] for split in raw}
    card = DataCard(
        source=source.kind,
        label=_label(source, encodings),
        classes=source.classes,
        image_shape=(1 if layout.grey else 3, layout.height, layout.width),
        counts={
            split: class_counts(images.labels[good[split]], source.classes)
            for split, images in raw.items()
        },
        mean=mean,
        std=std,
        sha256=whole_identity(identities),
        split_sha256=identities,
        skipped={split: len(images.labels) - len(good[split]) for split, images in raw.items()},
        encodings=dict(encodings.most_common()),
        sizes={f"{h}×{w}": n for (h, w), n in sizes.most_common(20)},
        remarks=overlaps(surveys["train"].contents, surveys["test"].contents),
    )
    return card, arrays


def _layout(
    source: Source,
    raw: Mapping[str, Encoded],
    surveys: Mapping[str, Survey],
    sizes: Counter[tuple[int, int]],
    config: DataConfig,
) -> _Layout:
    height, width = _shape(source, sizes, config.image_size)
    grey = all(s.grey for s in surveys.values()) if config.channels == "auto" else False
    grey = grey or config.channels == 1
    count = sum(len(images.labels) for images in raw.values())
    fits = count * height * width * (1 if grey else 3) <= config.in_memory_mb * 1e6
    held = fits and max(height, width) <= LARGEST_HELD
    resized = config.image_size is not None
    return _Layout(height, width, grey, held, resized, config.resize)


def _shape(
    source: Source, sizes: Counter[tuple[int, int]], image_size: int | None
) -> tuple[int, int]:
    """Height and width that the network sees."""
    if image_size is not None:
        return image_size, image_size
    if not sizes:
        raise ArtifactError(
            f"{source.label}: not one image can be read",
            hint="look at the files, or fetch them again",
        )
    unset = f"data.image_size is not set and the images of {source.label}"
    if len(sizes) > 1:
        (low, high) = ("×".join(map(str, edge)) for edge in (min(sizes), max(sizes)))
        raise SizesDiffer(f"{unset} have {len(sizes)} sizes, from {low} to {high}", hint=_RESIZE)
    (height, width) = next(iter(sizes))
    if max(height, width) > LARGEST_HELD and height != width:  # streamed ones are cropped square
        raise SizesDiffer(f"{unset} are {height}×{width}, not square", hint=_RESIZE)
    return height, width


def _decoded(images: Encoded, split: str, found: Survey, layout: _Layout) -> dict[str, np.ndarray]:
    if not layout.held:
        return {f"{split}-good": _readable(images, found, layout)}
    shape = (layout.height, layout.width)
    fit = layout.fit if layout.resized else None
    pixels, good = decode_all(images, grey=layout.grey, shape=shape, fit=fit)
    return {f"{split}-pixels": pixels, f"{split}-good": good}


def _readable(images: Encoded, found: Survey, layout: _Layout) -> np.ndarray:
    """Rows that can be streamed: decoded once where they are few enough, else by their headers."""
    good = np.setdiff1d(np.arange(len(images.labels)), np.array(found.bad, np.int64))
    if len(good) > FULL_CHECK:
        return good
    return np.array(
        [int(i) for i in good if _streamed(images, int(i), layout) is not None], np.int64
    )


def _sample(images: Encoded, arrays: Mapping[str, np.ndarray], layout: _Layout) -> np.ndarray:
    """Train pixels (N, H, W, C) uint8 for mean and std: all that are held, else some of them."""
    if layout.held:
        return arrays["train-pixels"]
    good = arrays["train-good"]
    rows = good[np.linspace(0, len(good) - 1, min(STATISTICS, len(good))).round().astype(np.int64)]
    pictures = [_streamed(images, int(i), layout) for i in rows]
    return np.stack([picture for picture in pictures if picture is not None])


def _streamed(images: Encoded, row: int, layout: _Layout) -> np.ndarray | None:
    """One image as `StreamedImages` will show it; None when it is damaged."""
    return try_decode(images, row, grey=layout.grey, fit=layout.fit)


def _label(source: Source, encodings: Counter[str]) -> str:
    """The source's label, with the encoding where it is lossy and (nearly) all images have it."""
    if not encodings:
        return source.label
    name, count = encodings.most_common(1)[0]
    if not name.startswith("JPEG") or count < 0.99 * encodings.total():
        return source.label
    if source.label.endswith(")"):
        return source.label[:-1] + f", {name})"
    return f"{source.label} ({name})"


def _skipped(images: Encoded, good: np.ndarray) -> list[str]:
    """Names of the images that cannot be read."""
    bad = np.setdiff1d(np.arange(len(images.labels)), good)
    return [images.name(int(i)) for i in bad]


def _remarks(skipped: Mapping[str, list[str]]) -> list[str]:
    return [
        f"left out: {count_of(len(names), f'{split} image')} that cannot be read: "
        f"{first_three(names)}"
        for split, names in skipped.items()
        if names
    ]


def _check_skipped(card: DataCard, skipped: Mapping[str, list[str]], most: float) -> None:
    for split, names in skipped.items():
        total = len(names) + card.images[split]
        if len(names) > most * total:
            raise ArtifactError(
                f"{card.label}: {len(names)} of {total} {split} images cannot be read, "
                f"more than the {most:.1%} allowed: {first_three(names)}",
                hint=Hint("fetch the images again, or raise ", Key("data.max_corrupt")),
            )

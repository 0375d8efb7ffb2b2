"""Every split of a source, read once and checked, with the card of the data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.data.card import DataCard
from pipeline.data.content import Decoded, Encoded
from pipeline.data.decode import resize_all, with_channels
from pipeline.data.images import NO_VARIATION, channel_statistics
from pipeline.data.overlap import overlaps
from pipeline.data.parts import (
    Part,
    PreparedData,
    check_labels,
    class_counts,
    split_identities,
    whole_identity,
)
from pipeline.data.prepare_encoded import prepare_encoded
from pipeline.data.sources.base import Source
from pipeline.errors import ArtifactError, Hint, Key, UsageError
from pipeline.preprocessing import Fit
from pipeline.words import as_text, count_of, first_three

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig


def prepare(source: Source, config: DataConfig) -> PreparedData:
    """Check and decode every split of `source`.

    Raises:
        ArtifactError: a split is missing, damaged, or wrongly labelled.
        UsageError: the settings do not fit the images.
    """
    if len(source.classes) < 2:
        found = f"one class, {source.classes[0]!r}" if source.classes else "no class"
        raise ArtifactError(
            f"{source.label}: {found}: there is nothing to tell apart",
            hint="put the images of each class into a folder of its own",
        )
    for name in source.classes:
        if name != as_text(name):
            raise ArtifactError(
                f"{source.label}: the name of class {as_text(name)} is no UTF-8 text",
                hint="rename it, or its folder: labels are written as UTF-8 wherever they go",
            )
    for split in ("train", "test"):
        if split not in source.splits:
            hint = f"it has {', '.join(source.splits)}"
            raise ArtifactError(f"{source.label}: there is no {split} split", hint=hint)
    raw = {split: source.read(split) for split in source.splits}
    source.label = as_text(_label(source, raw))
    for split, part in raw.items():
        check_labels(part.labels, split, source)
    raw = _in_order(source, raw, config.classes)
    identities = split_identities(source, {split: part.labels for split, part in raw.items()})
    encoded = {split: part for split, part in raw.items() if isinstance(part, Encoded)}
    if encoded:
        card, parts = prepare_encoded(source, encoded, identities, config)
    else:
        decoded = {split: part for split, part in raw.items() if isinstance(part, Decoded)}
        card, parts = _prepare_decoded(source, decoded, identities, config)
    return PreparedData(_with_settings(card, config), parts)


def _label(source: Source, raw: Mapping[str, Decoded | Encoded]) -> str:
    """A whole public set bears its name, whatever the layout; a part of one keeps the folder's."""
    counts = tuple(len(raw[split].labels) for split in ("train", "test"))
    known = source.public
    return known.label if known is not None and counts == known.images else source.label


def _prepare_decoded(
    source: Source, raw: dict[str, Decoded], identities: dict[str, str], config: DataConfig
) -> tuple[DataCard, dict[str, Part]]:
    """Sets whose files hold plain pixels: always in memory."""
    total = sum(len(part.labels) for part in raw.values())
    *stored, channels = raw["train"].pixels.shape[1:]
    channels = channels if config.channels == "auto" else config.channels
    height, width = stored if config.image_size is None else [config.image_size] * 2
    megabytes = total * height * width * channels / 1e6
    if megabytes > config.in_memory_mb:
        raise UsageError(
            f"data.in_memory_mb: {source.label} at {height}×{width} takes {megabytes:,.0f} MB",
            hint=Hint(
                "set a smaller ",
                Key("data.image_size"),
                ", or allow more with ",
                Key("data.in_memory_mb"),
            ),
        )
    fit = Fit(height, width, config.resize)
    pixels = {
        split: resize_all(with_channels(part.pixels, channels), fit) for split, part in raw.items()
    }
    mean, std = channel_statistics(torch.from_numpy(pixels["train"]))
    card = DataCard(
        source=source.kind,
        label=source.label,
        classes=source.classes,
        image_shape=(channels, height, width),
        counts={split: class_counts(part.labels, source.classes) for split, part in raw.items()},
        mean=mean,
        std=std,
        sha256=whole_identity(identities),
        split_sha256=identities,
        skipped={split: part.skipped for split, part in raw.items()},
        encodings={"lossless": total},
        sizes={f"{stored[0]}×{stored[1]}": total},
        remarks=(*source.remarks(), *overlaps(_contents(raw["train"]), _contents(raw["test"]))),
    )
    return card, {split: Part(part.labels, pixels=pixels[split]) for split, part in raw.items()}


def _contents(part: Decoded) -> list[bytes]:
    return [hashlib.sha256(picture.tobytes()).digest() for picture in part.pixels]


def _in_order(
    source: Source, raw: dict[str, Decoded | Encoded], wanted: tuple[str, ...] | None
) -> dict[str, Decoded | Encoded]:
    """The splits with their classes numbered as `wanted` has them; `source` names them so then."""
    if wanted is None or wanted == source.classes:
        return raw
    if sorted(wanted) != sorted(source.classes):
        odd = sorted(set(wanted) ^ set(source.classes)) or ["a name that stands there twice"]
        raise UsageError(
            f"data.classes are not those of {source.label}: {first_three(odd)}",
            hint=f"it must name all of {first_three(source.classes)}, each once",
        )
    number = np.array([wanted.index(name) for name in source.classes])
    source.classes = wanted
    return {split: replace(part, labels=number[part.labels]) for split, part in raw.items()}


def _with_settings(card: DataCard, config: DataConfig) -> DataCard:
    """The card with what the config gives: label, mean, std and the way of resizing."""
    for name in ("mean", "std"):
        given = getattr(config, name)
        if given is not None and len(given) != card.in_channels:
            has = f"the images have {count_of(card.in_channels, 'channel')}"
            raise UsageError(f"data.{name} has {len(given)} numbers, {has}")
    if config.std is not None and min(config.std) <= 0:
        raise UsageError("data.std must be positive")
    constant = [str(channel) for channel, std in enumerate(card.std) if std == NO_VARIATION]
    if len(constant) == card.in_channels:
        raise ArtifactError(
            f"{card.label}: every pixel of the train images has the same value",
            hint="look at the files: there is nothing to learn from",
        )
    remark = f"channel {', '.join(constant)} has one value in all train images"
    card = replace(
        card,
        remarks=(*card.remarks, remark) if constant else card.remarks,
        label=config.label or card.label,
        mean=config.mean or card.mean,
        std=config.std or card.std,
    )
    return replace(card, preprocessing=card.specification(config.resize).to_dict())

"""Every split of a source, read once and checked, with the card of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pipeline.data.card import DataCard
from pipeline.data.content import Decoded, Encoded
from pipeline.data.decode import resize_all
from pipeline.data.images import channel_statistics
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

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig


def prepare(source: Source, config: DataConfig) -> PreparedData:
    """Check and decode every split of `source`.

    Raises:
        ArtifactError: a split is missing, damaged, or wrongly labelled.
        UsageError: the settings do not fit the images.
    """
    for split in ("train", "test"):
        if split not in source.splits:
            hint = f"it has {', '.join(source.splits)}"
            raise ArtifactError(f"{source.label}: there is no {split} split", hint=hint)
    raw = {split: source.read(split) for split in source.splits}
    source.label = _label(source, raw)
    for split, part in raw.items():
        check_labels(part.labels, split, source)
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
    pixels = {split: resize_all(part.pixels, fit) for split, part in raw.items()}
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
    )
    return card, {split: Part(part.labels, pixels=pixels[split]) for split, part in raw.items()}


def _with_settings(card: DataCard, config: DataConfig) -> DataCard:
    """The card with what the config gives: label, mean, std and the way of resizing."""
    for name in ("mean", "std"):
        given = getattr(config, name)
        if given is not None and len(given) != card.in_channels:
            has = f"the images have {card.in_channels} channel(s)"
            raise UsageError(f"data.{name} has {len(given)} numbers, {has}")
    if config.std is not None and min(config.std) <= 0:
        raise UsageError("data.std must be positive")
    card = replace(
        card,
        label=config.label or card.label,
        mean=config.mean or card.mean,
        std=config.std or card.std,
    )
    return replace(card, preprocessing=card.specification(config.resize).to_dict())

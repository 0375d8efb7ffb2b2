"""From a config to images: open the source, check what it holds, decode, split."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.data.card import DataCard
from pipeline.data.hashing import sha256_files
from pipeline.data.images import Images, channel_statistics
from pipeline.data.sources import Decoded, Source, open_source
from pipeline.data.splits import Splits, carve
from pipeline.errors import ArtifactError

if TYPE_CHECKING:
    from pipeline.config import DataConfig


def load_splits(config: DataConfig, *, seed: int) -> Splits:
    """Train and search images; search is `config.search_fraction` of each class of train, drawn by `seed`.

    Raises ArtifactError, EnvironmentProblem or UsageError as `open_source` and the checks of a split do.
    """
    return carve(_images(config, "train"), config.search_fraction, seed)


def load_test(config: DataConfig) -> Images:
    """The test images: for the final numbers of benchmark and report, never for a choice."""
    return _images(config, "test")


@lru_cache(maxsize=8)
def describe(config: DataConfig) -> DataCard:
    """Classes, counts, image size, normalisation and content hash of the data set."""
    source = open_source(config)
    parts = {split: _read(source, split) for split in source.splits}
    counts = {s: tuple(np.bincount(d.labels, minlength=len(source.classes)).tolist()) for s, d in parts.items()}
    mean, std = channel_statistics(torch.from_numpy(parts["train"].pixels))
    height, width, channels = parts["train"].pixels.shape[1:]
    return DataCard(
        source=source.kind,
        label=config.label or source.label,
        classes=source.classes,
        image_shape=(channels, height, width),
        counts=counts,
        mean=mean,
        std=std,
        sha256={split: sha256_files(source.files(split)) for split in source.splits},
    )


def _images(config: DataConfig, split: str) -> Images:
    card = describe(config)
    source = open_source(config)
    part = _read(source, split)
    return Images(torch.from_numpy(part.pixels), torch.from_numpy(part.labels), source.classes, card.mean, card.std)


def _read(source: Source, split: str) -> Decoded:
    if split not in source.splits:
        raise ArtifactError(f"{source.label}: there is no {split} split", hint=f"it has: {', '.join(source.splits)}")
    part = source.read(split)
    assert isinstance(part, Decoded)
    return part

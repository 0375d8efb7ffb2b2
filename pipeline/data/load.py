"""From a config to images: open the source, check what it holds, decode or stream, split."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from pipeline.data.card import DataCard
from pipeline.data.images import Images, balanced_indices
from pipeline.data.prepare import PreparedData, prepare
from pipeline.data.sources import open_source
from pipeline.data.sources.base import Source
from pipeline.data.splits import Splits, carve
from pipeline.data.stream import StreamedImages
from pipeline.preprocessing import Fit

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

_LIMIT_SEED = 0  # `train_limit` and `test_limit` choose the same images whatever the run's seed


def load_splits(config: DataConfig, *, seed: int) -> Splits:
    """Train and search images.

    Search is `config.search_fraction` of each class of train, drawn by `seed`, unless the data have
    a validation split beside train and test: then it is that.

    Raises:
        ArtifactError, EnvironmentProblem, UsageError: as `describe` does.
    """
    prepared = _prepared(config)
    train = _limited(_images(config, prepared, "train"), config.train_limit)
    if "search" in prepared.parts:
        return Splits(train=train, search=_images(config, prepared, "search"))
    return carve(train, config.search_fraction, seed)


def load_test(config: DataConfig) -> Images:
    """The test images: for the final numbers of benchmark and report, never for a choice.

    Raises:
        ArtifactError, EnvironmentProblem, UsageError: as `describe` does.
    """
    return _limited(_images(config, _prepared(config), "test"), config.test_limit)


def describe(config: DataConfig) -> DataCard:
    """Classes, counts, image size, normalisation and content hash of the data set.

    Raises:
        UsageError: the settings do not fit the images.
        EnvironmentProblem: the images are not there and cannot be had.
        ArtifactError: they are partial, damaged, or wrongly labelled.
    """
    return _prepared(config).card


@dataclass(frozen=True)
class _Request:
    """What is asked for; two are equal where the settings and the files are, as far as stat says.

    Attributes:
        stamp: hash of path, size and time of every file.
        source: opened once to take the stamp, then read where the answer is not known yet.
    """

    config: DataConfig
    stamp: int
    source: Source = field(compare=False)


def _prepared(config: DataConfig) -> PreparedData:
    source = open_source(config)
    stamps = []
    for split in source.splits:
        for path in source.files(split):
            with suppress(OSError):  # told of as an image that cannot be read
                info = os.stat(path)
                stamps.append((str(path), info.st_size, info.st_mtime_ns))
    # hash() differs from process to process, and so it may: the cache is this one's
    return _prepared_once(_Request(config, hash(tuple(stamps)), source))


@lru_cache(maxsize=2)  # several stages of one process ask for the same images
def _prepared_once(request: _Request) -> PreparedData:
    return prepare(request.source, request.config)


def _images(config: DataConfig, prepared: PreparedData, split: str) -> Images:
    part, card = prepared.parts[split], prepared.card
    if part.pixels is not None:
        pixels, labels = torch.from_numpy(part.pixels), torch.from_numpy(part.labels)
        return Images(pixels, labels, card.classes, card.mean, card.std)
    assert part.encoded is not None
    assert part.good is not None
    return StreamedImages(
        part.encoded,
        torch.from_numpy(part.good),
        card.classes,
        card.mean,
        card.std,
        fit=Fit(*card.image_shape[1:], config.resize),
        grey=card.in_channels == 1,
        workers=config.workers,
    )


def _limited(images: Images, limit: int | None) -> Images:
    if limit is None or limit >= len(images):
        return images
    return images.subset(balanced_indices(images.labels, limit, _LIMIT_SEED))

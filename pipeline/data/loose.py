"""Images for a model that came without a run: any layout that is recognised, or a flat folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.config.data import DataConfig
from pipeline.data.content import Decoded, Encoded
from pipeline.data.decode import resize_all
from pipeline.data.images import Images
from pipeline.data.reading import read_file
from pipeline.data.sources import open_source
from pipeline.data.sources.base import Source
from pipeline.data.sources.folders import SUFFIXES, Folders
from pipeline.data.stream import StreamedImages
from pipeline.errors import ArtifactError, UsageError
from pipeline.preprocessing import Fit
from pipeline.words import count_of

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and std that most published weights were trained with: torchvision's, and timm's default."""


@dataclass(frozen=True)
class Wanted:
    """What a model takes.

    Attributes:
        shape: (C, H, W) of one image.
        mean, std: per channel, of pixels scaled to 0 … 1.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def loose_images(root: Path, wanted: Wanted, splits: tuple[str, ...]) -> Images:
    """Images below `root` as the model takes them: scaled until both sides are covered, the middle
    cut out.

    Args:
        splits: of a folder that has several, the first of these that it has.
    Returns:
        images labelled by class where `root` has a layout with classes; else they have one class,
        called "".
    Raises:
        ArtifactError, EnvironmentProblem: there are no images, or they cannot be read.
        UsageError: they are not of the shape that the model takes.
    """
    channels, height, width = wanted.shape
    flat = _flat(root)
    if flat is not None:
        return _streamed(flat, ("",), wanted)
    source = open_source(DataConfig(root=str(root)))
    part = _part(source, splits)
    if isinstance(part, Encoded):
        return _streamed(part, source.classes, wanted)
    if part.pixels.shape[3] != channels:
        has = f"{source.label} has {part.pixels.shape[3]}"
        raise UsageError(f"the model takes {count_of(channels, 'channel')}, {has}")
    pixels = torch.from_numpy(resize_all(part.pixels, Fit(height, width)))
    labels = torch.from_numpy(part.labels)
    return Images(pixels, labels, source.classes, wanted.mean, wanted.std)


def _flat(root: Path) -> Encoded | None:
    """The pictures that lie in `root` itself; None where there are none."""
    if not root.is_dir():
        raise ArtifactError(f"{root}: there is no such folder", hint="give a folder of images")
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        return None
    return Encoded(
        read=lambda i: read_file(files[i]),
        labels=np.zeros(len(files), np.int64),
        name=lambda i: str(files[i]),
    )


def _part(source: Source, splits: tuple[str, ...]) -> Decoded | Encoded:
    if isinstance(source, Folders) and source.divided:
        return _joined([source.read(name) for name in source.splits])  # it was meant as a whole
    name = next((name for name in splits if name in source.splits), source.splits[0])
    return source.read(name)


def _joined(parts: list[Encoded]) -> Encoded:
    places = [(part, i) for part in parts for i in range(len(part.labels))]
    return Encoded(
        read=lambda i: places[i][0].read(places[i][1]),
        labels=np.concatenate([part.labels for part in parts]),
        name=lambda i: places[i][0].name(places[i][1]),
    )


def _streamed(images: Encoded, classes: tuple[str, ...], wanted: Wanted) -> StreamedImages:
    channels, height, width = wanted.shape
    rows = torch.arange(len(images.labels))
    grey = channels == 1
    mean, std = wanted.mean, wanted.std
    return StreamedImages(images, rows, classes, mean, std, fit=Fit(height, width), grey=grey)

"""The splits of a data set, checked and ready to serve, and what identifies their content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from pipeline.data.card import DataCard
from pipeline.data.content import Encoded
from pipeline.data.hashing import sha256_bytes, sha256_files
from pipeline.data.sources.base import Source
from pipeline.errors import ArtifactError


@dataclass(frozen=True)
class Part:
    """One split: either `pixels`, or `encoded` with the `good` rows of it.

    Attributes:
        labels: (N,) int64, of the images that can be read.
        pixels: (N, H, W, C) uint8.
        encoded: all images of the split, to be decoded batch by batch.
        good: (N,) int64, rows of `encoded` that can be read.
    """

    labels: np.ndarray
    pixels: np.ndarray | None = None
    encoded: Encoded | None = None
    good: np.ndarray | None = None


@dataclass(frozen=True)
class PreparedData:
    """A whole data set: its card, and its parts by split."""

    card: DataCard
    parts: dict[str, Part]


def check_labels(labels: np.ndarray, split: str, source: Source) -> None:
    """Raise ArtifactError unless `labels` (N,) name every class of the source, and nothing else."""
    if not len(labels):
        raise ArtifactError(
            f"{source.label}: the {split} split is empty", hint="fetch the data set again"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(source.classes)))
    if len(outside):
        row = int(outside[0])
        raise ArtifactError(
            f"{source.label}: {len(outside)} labels of {split} are out of range "
            f"(0 … {len(source.classes) - 1}), the first is {labels[row]} in row {row}",
            hint="correct the labels, or the class names in the file's metadata",
        )
    check_classes(labels, split, source)


def check_classes(labels: np.ndarray, split: str, source: Source) -> None:
    """Raise ArtifactError for a class without an image among `labels` (N,)."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(source.classes)) == 0)
    if len(empty):
        first = source.classes[int(empty[0])]
        others = f", nor have {len(empty) - 1} others" if len(empty) > 1 else ""
        raise ArtifactError(
            f"{source.label}: class {first!r} has no image in {split}{others}",
            hint="add images of this class, or remove it from the class names",
        )


def class_counts(labels: np.ndarray, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Images of each class among `labels` (N,)."""
    return tuple(np.bincount(labels, minlength=len(classes)).tolist())


def split_identities(source: Source, labels: dict[str, np.ndarray]) -> dict[str, str]:
    """sha256 of each split: class names, labels, files."""
    hashes = {}
    for split in source.splits:
        identity = hashlib.sha256(json.dumps(source.classes).encode())
        identity.update(labels[split].astype("<i8").tobytes())  # whatever this machine's order
        identity.update(sha256_files(source.files(split)).encode())
        hashes[split] = identity.hexdigest()
    return hashes


def whole_identity(identities: dict[str, str]) -> str:
    """sha256 of all splits together."""
    return sha256_bytes(json.dumps(identities, sort_keys=True).encode())

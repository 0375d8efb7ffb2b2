"""Images for a file that came without a run: what the file says of them, and what the user does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.data.images import Images
from pipeline.data.loose import IMAGENET, Wanted, loose_images
from pipeline.data.splits import carve
from pipeline.errors import UsageError
from pipeline.runtime.worker import Worker
from stages.quantize.images import Batches, Unlabelled

_SHARE = 0.2  # of labelled calibration images that choices are made on where no others are given


@dataclass(frozen=True)
class OutsideImages:
    """What a file without a run is calibrated with and chosen on.

    Attributes:
        search: None where there are no labels that the file's classes can have.
        notes: what had to be assumed.
    """

    calibration: Batches
    search: Batches | None
    notes: tuple[str, ...] = field(default=())


def outside_images(
    path: Path,
    calibration: Path,
    search: Path | None = None,
    *,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> OutsideImages:
    """Images as the file takes them; normalised as it says, as told, or as ImageNet's are.

    Args:
        calibration, search: folders; without `search`, a fifth of labelled calibration images.
        size: height and width, where the file leaves them open.
    Raises:
        ArtifactError, EnvironmentProblem: the file or the images cannot be read.
        UsageError: the file does not say what it takes, or the images are others.
    """
    with Worker() as worker:
        facts = worker.open(path, threads=1)
    notes: list[str] = []
    wanted = _wanted(path, facts, size, mean, std, notes)
    train = loose_images(calibration, wanted, ("train",))
    labelled = _labelled(train, facts)
    if search is not None:
        held = loose_images(search, wanted, ("search", "test", "train"))
        if not _labelled(held, facts):
            notes.append(f"{search}: not the classes of {path.name}; agreement with fp32 decides")
        images: Batches = held if _labelled(held, facts) else Unlabelled(held)
        return OutsideImages(_mixed(train, seed), _ordered(images, facts, seed), tuple(notes))
    if labelled:
        splits = carve(train, _SHARE, seed)
        notes.append(f"a fifth of {calibration} is held out to choose on")
        return OutsideImages(
            _mixed(splits.train, seed), _ordered(splits.search, facts, seed), tuple(notes)
        )
    notes.append("no labels, so agreement with fp32 on the calibration images decides")
    return OutsideImages(_mixed(train, seed), None, tuple(notes))


def _wanted(
    path: Path,
    facts: Mapping[str, Any],
    size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    notes: list[str],
) -> Wanted:
    """What the file's input and its metadata say, and where they do not, what is usual."""
    sizes = [value if isinstance(value, int) else None for value in facts["inputs"][0]["shape"]]
    if len(sizes) != 4:
        raise UsageError(f"{path.name}: its input is no batch of images", hint="NCHW is expected")
    channels, height, width = sizes[1] or 3, sizes[2] or size, sizes[3] or size
    if height is None or width is None:
        raise UsageError(f"{path.name} leaves the size of its images open", hint="give --size")
    said = {name: facts["metadata"].get(name) for name in ("mean", "std")}
    known = [json.loads(value) for value in said.values() if value]
    if mean is None and std is None and len(known) != 2:
        notes.append("normalised as ImageNet's images are; --mean and --std say otherwise")
        known = [list(values) for values in IMAGENET]
    centre, spread = mean or known[0], std or known[1]
    if channels == 1:
        centre, spread = centre[:1], spread[:1]
    return Wanted((channels, height, width), tuple(centre), tuple(spread))


def _labelled(images: Images, facts: Mapping[str, Any]) -> bool:
    """Whether the classes of the images may be those of the file: as many of them."""
    outputs = facts["outputs"][0]["shape"][-1]
    return images.num_classes > 1 and outputs in (images.num_classes, None)


def _mixed(images: Images, seed: int) -> Images:
    """The same images in an order whose beginning is a fair sample."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.subset(order)


def _ordered(images: Batches, facts: Mapping[str, Any], seed: int) -> Batches:
    """Mixed, with labels as the file numbers its classes, where it names them."""
    if not isinstance(images, Images):
        return images
    mixed = _mixed(images, seed)
    names = json.loads(facts["metadata"].get("classes", "[]"))
    if sorted(names) == sorted(mixed.classes):
        place = torch.tensor([names.index(name) for name in mixed.classes])
        mixed.labels = place[mixed.labels]
    return mixed

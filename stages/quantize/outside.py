"""Images for a file that came without a run: what the file says of them, and what the user does."""

from __future__ import annotations

import json
import math
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
from pipeline.words import count_of
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
    shape = facts["inputs"][0]["shape"] if facts["inputs"] else []
    sizes = [value if isinstance(value, int) and value > 0 else None for value in shape]
    if len(sizes) != 4:
        raise UsageError(f"{path.name}: its input is no batch of images", hint="NCHW is expected")
    channels, height, width = sizes[1] or 3, sizes[2] or size, sizes[3] or size
    if height is None or width is None:
        raise UsageError(f"{path.name} leaves the size of its images open", hint="give --size")
    centre, spread = mean or _numbers(facts, "mean"), std or _numbers(facts, "std")
    if mean is None and std is None and not (centre and spread):
        notes.append("normalised as ImageNet's images are; --mean and --std say otherwise")
        centre, spread = IMAGENET
    if not centre or not spread:
        missing = "--std" if centre else "--mean"
        raise UsageError(f"{path.name} does not say {missing}", hint="give both --mean and --std")
    if channels == 1:
        centre, spread = centre[:1], spread[:1]
    for numbers in (centre, spread):
        if len(numbers) not in (1, channels):
            raise UsageError(
                f"{path.name} takes {count_of(channels, 'channel')}, normalised by {len(numbers)}",
                hint="give a number a channel: --mean R,G,B --std R,G,B",
            )
    return Wanted((channels, height, width), tuple(centre), tuple(spread))


def _list(facts: Mapping[str, Any], key: str) -> list[Any]:
    """What the metadata, which may be anybody's, say under this key; empty where it is no list."""
    try:
        found = json.loads(facts["metadata"].get(key, "[]"))
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _numbers(facts: Mapping[str, Any], key: str) -> list[float]:
    try:
        found = [float(value) for value in _list(facts, key)]
    except (ValueError, TypeError, OverflowError):
        return []
    usable = all(math.isfinite(value) and (key == "mean" or value > 0) for value in found)
    return found if usable else []


def _labelled(images: Images, facts: Mapping[str, Any]) -> bool:
    """Whether the classes of the images may be those of the file: as many of them."""
    shape = facts["outputs"][0]["shape"]
    return images.num_classes > 1 and bool(shape) and shape[-1] in (images.num_classes, None)


def _mixed(images: Images, seed: int) -> Images:
    """The same images in an order whose beginning is a fair sample."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.subset(order)


def _ordered(images: Batches, facts: Mapping[str, Any], seed: int) -> Batches:
    """Mixed, with labels as the file numbers its classes, where it names them."""
    if not isinstance(images, Images):
        return images
    mixed = _mixed(images, seed)
    names = [str(name) for name in _list(facts, "classes")]
    if sorted(names) == sorted(mixed.classes):
        place = torch.tensor([names.index(name) for name in mixed.classes])
        mixed.labels = place[mixed.labels]
    return mixed

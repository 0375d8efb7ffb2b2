"""Three splits: train for weights, search for every choice, test for the final numbers only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.images import Images
from pipeline.errors import ArtifactError
from pipeline.words import count_of


@dataclass(frozen=True)
class Splits:
    """All that training, search and distillation see; nothing leads from here to a test image."""

    train: Images
    search: Images

    def to(self, device: torch.device) -> Splits:
        """Both with their pixels on `device`."""
        return Splits(self.train.to(device), self.search.to(device))


def carve(images: Images, fraction: float, seed: int) -> Splits:
    """Hold out `fraction` of every class of `images`, drawn by `seed`, as the search split.

    Raises:
        ArtifactError: a class has fewer than two images.
    """
    held, kept = stratified(images.labels, fraction, seed, images.classes)
    return Splits(train=images.subset(kept), search=images.subset(held))


def stratified(
    labels: Tensor, fraction: float, seed: int, classes: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Ascending indices `(held, kept)` of `labels` (N,): a share of each class, at least one.

    Raises:
        ArtifactError: a class has fewer than two images.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = labels.cpu()[order]
    held = torch.zeros(len(labels), dtype=torch.bool)
    for k, name in enumerate(classes):
        mine = order[shuffled == k]
        if len(mine) < 2:
            raise ArtifactError(
                f"class {name!r} has {count_of(len(mine), 'image')}; "
                "a search split needs at least two of each class",
                hint="add images of this class, or remove it from the data set",
            )
        count = max(1, round(fraction * len(mine)))
        held[mine[: min(len(mine) - 1, count)]] = True  # one at least is left to train on
    return held.nonzero().flatten(), (~held).nonzero().flatten()

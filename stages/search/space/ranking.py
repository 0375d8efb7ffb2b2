"""Importance of units: which of them stay for given counts, and how much the others mattered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.channels.counts import Counts
from stages.search.space.space import Space

Importance = tuple[NDArray[np.float64], ...]
"""Per group of the space, the importance of its units, (size,)."""

Removed = Callable[[Counts], float]
"""counts (G,) -> what such a candidate loses by its cut alone, in any unit."""


@dataclass(frozen=True)
class Ranking:
    """Which units stay, for given counts: the most important of each group.

    Attributes:
        order: per group of the space, unit indices from the most to the least important.
    """

    ids: tuple[str, ...]
    order: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, space: Space, importance: Mapping[str, Tensor]) -> Ranking:
        """From importances per group id, (size,); of equal ones the lower index comes first."""
        order = tuple(
            tuple(torch.argsort(-importance[name], stable=True).tolist()) for name in space.ids
        )
        return cls(space.ids, order)

    def keep(self, counts: Counts) -> dict[str, tuple[int, ...]]:
        """`{group id: kept unit indices, ascending}`."""
        pairs = zip(self.ids, self.order, counts.tolist(), strict=True)
        return {name: tuple(sorted(order[:count])) for name, order, count in pairs}


class Removal:
    """Importance that a candidate cuts away: of every group the least important units.

    Args:
        importance: per group of the space, the importance of its units, any order.

    Attributes:
        sums: per group, entry n is the importance of its n least important units.
    """

    def __init__(self, importance: Sequence[NDArray[np.float64]]) -> None:
        self.sums = tuple(
            np.concatenate([[0.0], np.cumsum(np.sort(values))]) for values in importance
        )

    def __call__(self, counts: Counts) -> float:
        """Of counts (G,), in the unit of the importance."""
        return float(
            sum(sums[len(sums) - 1 - kept] for sums, kept in zip(self.sums, counts, strict=True))
        )

"""Which terms of a cost are left when branches go."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.branch import Branch
from pipeline.channels.counts import Array, Counts


@dataclass(frozen=True)
class Dropping:
    """Branches against the terms of a cost: one that keeps no unit takes all of its terms along,
    also those of the trunk's width.

    Attributes:
        branches: ids of those that may go.
        inside: (B, G) whether a group goes with a branch.
        terms: (B, T) whether a term does.
    """

    branches: tuple[str, ...] = ()
    inside: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    terms: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))

    @classmethod
    def of(
        cls,
        removable: Mapping[str, Branch],
        whole: Mapping[frozenset[str], Branch],
        ids: Sequence[str],
        names: Sequence[str],
    ) -> Dropping:
        """For counts of the groups `ids`, and terms of the layers or tensors `names`.

        Args:
            removable, whole: of the graph: `ChannelGraph.removable` and `whole_branches`.
        """
        groups = {branch.id: inside for inside, branch in whole.items()}
        inside = np.zeros((len(removable), len(ids)), dtype=bool)
        for row, name in enumerate(removable):
            if name in groups and groups[name] <= set(ids):
                inside[row] = [group in groups[name] for group in ids]
        terms = [[branch.holds(name) for name in names] for branch in removable.values()]
        shape = len(removable), len(names)
        return cls(tuple(removable), inside, np.array(terms, dtype=bool).reshape(shape))

    def left(self, counts: Counts, drop: Collection[str] = ()) -> Array | float:
        """1 for a term that is left and 0 for one that has gone, (..., T) for counts (..., G).

        Args:
            drop: branches that go whatever the counts.
        """
        if not self.branches or (not drop and counts.all()):  # nearly always
            return 1.0
        gone = self.gone(counts) | np.array([name in drop for name in self.branches])
        return 1.0 - (gone.astype(np.float64) @ self.terms > 0)

    def gone(self, counts: Counts) -> NDArray[np.bool_]:
        """(..., B): whether nothing is kept of a branch, for counts (..., G)."""
        kept = (counts[..., None, :] * self.inside).sum(-1)
        return np.asarray((kept == 0) & self.inside.any(-1))

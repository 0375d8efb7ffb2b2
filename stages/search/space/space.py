"""What a search may choose: how many units each channel group keeps, and which branches go.

A group of 44 units with blocks of 8 and a floor of 8 may keep 8, 16, 24, 32, 40, or all 44:

    floor=8      16      24      32      40  44=size
      |-- block --|-------|-------|-------|---|

Keeping a group whole is always allowed, also where its width is no multiple of the block: that is
the width its author chose. Frozen groups are not part of the space at all.

The groups of a residual branch that may go can also keep nothing, all of them together: below half
of its floor a group goes rather than staying that narrow.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Counts
from pipeline.channels.group import ChannelGroup

_LOGIT_LIMIT = 8.0
_GONE = 0.5  # of its floor, below which a group goes: nothing is as near as the floor is


@dataclass(frozen=True)
class Space:
    """The prunable groups, as arrays of equal length G in graph order.

    Attributes:
        ids: group ids.
        sizes: units of each group, int64.
        blocks: units that are added or removed together, int64.
        floors: fewest units of a group that stays, int64, a multiple of the block or the size.
        branches: places of the groups that keep nothing together; no group is in two of them.
    """

    ids: tuple[str, ...]
    sizes: Counts
    blocks: Counts
    floors: Counts
    branches: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def from_groups(
        cls,
        groups: Sequence[ChannelGroup],
        *,
        align: int,
        min_keep: float,
        original: Mapping[str, int] | None = None,
        branches: Iterable[Collection[str]] = (),
    ) -> Space:
        """Space over the prunable groups of a network.

        One unit of a grouped convolution is one channel in each of its groups, so 4 units of a
        ResNeXt's 32-group convolution are 128 channels and already a multiple of 8.

        Args:
            align: channel widths become multiples of this.
            min_keep: least share of a group's units in the original network that is kept, rounded
                up to whole blocks.
            original: units of those groups before any cut; absent: what the groups have.
            branches: ids of groups that may keep nothing together. Of those with a group in
                common the smallest counts: it stands within the others.
        """
        groups = [group for group in groups if group.prunable]
        sizes = np.array([group.size for group in groups], dtype=np.int64)
        before = [(original or {}).get(group.id, group.size) for group in groups]
        blocks = np.array(
            [align // math.gcd(align, group.channels_per_unit) for group in groups], dtype=np.int64
        )
        least = np.maximum(np.ceil(np.array(before, dtype=np.int64) * min_keep), 1).astype(np.int64)
        floors = np.minimum(-(-least // blocks) * blocks, sizes)
        ids = tuple(group.id for group in groups)
        return cls(ids, sizes, blocks, floors, _apart(branches, ids))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def mates(self) -> NDArray[np.bool_]:
        """(G, G): whether two groups keep nothing together; the diagonal says which may at all."""
        found = np.zeros((len(self), len(self)), dtype=bool)
        for places in self.branches:
            found[np.ix_(places, places)] = True
        return found

    @cached_property
    def may_go(self) -> NDArray[np.bool_]:
        """(G,): whether a group may keep nothing."""
        return self.mates.diagonal()

    @cached_property
    def least(self) -> Counts:
        """The smallest counts: every branch that may go has gone, every other group is at its
        floor.
        """
        return np.where(self.may_go, 0, self.floors)

    def snap(self, desired: NDArray[np.float64]) -> Counts:
        """Nearest allowed counts to real-valued ones; monotone in every entry."""
        last = self.sizes // self.blocks * self.blocks
        counts = np.minimum(
            np.floor(desired / self.blocks + 0.5).astype(np.int64) * self.blocks, last
        )
        # nearer to whole than to the last block
        counts = np.where(desired * 2 >= last + self.sizes, self.sizes, counts)
        counts = np.maximum(counts, self.floors)
        if not self.branches:
            return counts
        gone = self.may_go & (desired < self.floors * _GONE)
        return np.where(gone @ self.mates, 0, counts)

    def moved(self, counts: Counts, group: int | np.integer, width: int) -> Counts:
        """Counts (G,) with another width of one group, by its place.

        With it go all groups of its branch, or come back at their floors.
        """
        row, mates = counts.copy(), self.mates[group]
        if width == 0:
            row[mates] = 0
        elif counts[group] == 0:
            row[mates] = self.floors[mates]
        row[group] = width
        return row

    def up(self, counts: Counts) -> Counts:
        """Units that each group's next larger width adds; 0 for a whole group, and for one that
        has gone: it does not come back by itself.
        """
        return np.where(counts > 0, np.minimum(self.blocks, self.sizes - counts), 0)

    def down(self, counts: Counts) -> Counts:
        """Units that each group's next smaller width removes; 0 where there is none."""
        rest = counts % self.blocks
        narrower = np.minimum(np.where(rest > 0, rest, self.blocks), counts - self.floors)
        return np.where(self.may_go & (counts <= self.floors), counts, narrower)

    def widths(self, group: int) -> Counts:
        """All counts that a group, by its place, may keep: ascending, the whole group last."""
        size, block = int(self.sizes[group]), int(self.blocks[group])
        staying = np.append(np.arange(int(self.floors[group]), size, block), size)
        return np.append(0, staying) if self.may_go[group] else staying

    def allows(self, counts: Counts) -> bool:
        """Whether every group is between floor and size, and on a block or whole, or has gone with
        its branch.
        """
        on_block = (counts % self.blocks == 0) | (counts == self.sizes)
        stays = on_block & (counts >= self.floors) & (counts <= self.sizes)
        goes = self.may_go & ~((counts != 0) @ self.mates)
        return bool(np.all(stays | goes))

    def logits(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        """Keep ratios as logits, clipped to ±8 so that a whole group stays a finite number.

        One that has gone is as far below what keeps it away as its floor is above that.
        """
        desired = np.where(counts == 0, self.floors * _GONE**2, counts)
        ratio = np.clip(desired / self.sizes, 1e-9, 1 - 1e-9)
        return np.clip(np.log(ratio) - np.log1p(-ratio), -_LOGIT_LIMIT, _LOGIT_LIMIT)

    def as_dict(self, counts: Counts) -> dict[str, int]:
        """`{group id: units kept}`."""
        return dict(zip(self.ids, counts.tolist(), strict=True))

    def from_dict(self, kept: Mapping[str, int]) -> Counts:
        """Inverse of `as_dict`; groups not named are whole."""
        sizes = zip(self.ids, self.sizes, strict=True)
        return np.array([kept.get(name, size) for name, size in sizes], dtype=np.int64)


def _apart(branches: Iterable[Collection[str]], ids: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Places of the groups of each branch, the smallest of those with a group in common."""
    place, taken = {name: at for at, name in enumerate(ids)}, set[str]()
    found = []
    for names in sorted(branches, key=len):
        if taken.isdisjoint(names):
            taken.update(names)
            found.append(tuple(sorted(place[name] for name in names)))
    return tuple(sorted(found))

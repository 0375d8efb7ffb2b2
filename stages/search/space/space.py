"""What a search may choose: how many units each channel group keeps.

A group of 44 units with blocks of 8 and a floor of 8 may keep 8, 16, 24, 32, 40, or all 44:

    floor=8      16      24      32      40  44=size
      |-- block --|-------|-------|-------|---|

Keeping a group whole is always allowed, also where its width is no multiple of the block: that is
the width its author chose. Frozen groups are not part of the space at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Counts
from pipeline.channels.group import ChannelGroup

_LOGIT_LIMIT = 8.0


@dataclass(frozen=True)
class Space:
    """The prunable groups, as arrays of equal length G in graph order.

    Attributes:
        ids: group ids.
        sizes: units of each group, int64.
        blocks: units that are added or removed together, int64.
        floors: fewest units that may be kept, int64, a multiple of the block or the size.
    """

    ids: tuple[str, ...]
    sizes: Counts
    blocks: Counts
    floors: Counts

    @classmethod
    def from_groups(
        cls,
        groups: Sequence[ChannelGroup],
        *,
        align: int,
        min_keep: float,
        original: Mapping[str, int] | None = None,
    ) -> Space:
        """Space over the prunable groups of a network.

        One unit of a grouped convolution is one channel in each of its groups, so 4 units of a
        ResNeXt's 32-group convolution are 128 channels and already a multiple of 8.

        Args:
            align: channel widths become multiples of this.
            min_keep: least share of a group's units in the original network that is kept, rounded
                up to whole blocks.
            original: units of those groups before any cut; absent: what the groups have.
        """
        groups = [group for group in groups if group.prunable]
        sizes = np.array([group.size for group in groups], dtype=np.int64)
        before = [(original or {}).get(group.id, group.size) for group in groups]
        blocks = np.array(
            [align // math.gcd(align, group.channels_per_unit) for group in groups], dtype=np.int64
        )
        least = np.maximum(np.ceil(np.array(before, dtype=np.int64) * min_keep), 1).astype(np.int64)
        floors = np.minimum(-(-least // blocks) * blocks, sizes)
        return cls(tuple(group.id for group in groups), sizes, blocks, floors)

    def __len__(self) -> int:
        return len(self.ids)

    def snap(self, desired: NDArray[np.float64]) -> Counts:
        """Nearest allowed counts to real-valued ones; monotone in every entry."""
        last = self.sizes // self.blocks * self.blocks
        counts = np.minimum(
            np.floor(desired / self.blocks + 0.5).astype(np.int64) * self.blocks, last
        )
        # nearer to whole than to the last block
        counts = np.where(desired * 2 >= last + self.sizes, self.sizes, counts)
        return np.maximum(counts, self.floors)

    def up(self, counts: Counts) -> Counts:
        """Units that each group's next larger width adds; 0 for a whole group."""
        return np.minimum(self.blocks, self.sizes - counts)

    def down(self, counts: Counts) -> Counts:
        """Units that each group's next smaller width removes; 0 at the floor."""
        rest = counts % self.blocks
        return np.minimum(np.where(rest > 0, rest, self.blocks), counts - self.floors)

    def widths(self, group: int) -> Counts:
        """All counts that a group, by its place, may keep: ascending, the whole group last."""
        size, block = int(self.sizes[group]), int(self.blocks[group])
        return np.append(np.arange(int(self.floors[group]), size, block), size)

    def allows(self, counts: Counts) -> bool:
        """Whether every group is between floor and size, and on a block or whole."""
        on_block = (counts % self.blocks == 0) | (counts == self.sizes)
        return bool(np.all(on_block & (counts >= self.floors) & (counts <= self.sizes)))

    def logits(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        """Keep ratios as logits, clipped to ±8 so that a whole group stays a finite number."""
        ratio = np.clip(np.asarray(counts, dtype=np.float64) / self.sizes, 1e-9, 1 - 1e-9)
        return np.clip(np.log(ratio) - np.log1p(-ratio), -_LOGIT_LIMIT, _LOGIT_LIMIT)

    def as_dict(self, counts: Counts) -> dict[str, int]:
        """`{group id: units kept}`."""
        return dict(zip(self.ids, counts.tolist(), strict=True))

    def from_dict(self, kept: Mapping[str, int]) -> Counts:
        """Inverse of `as_dict`; groups not named are whole."""
        sizes = zip(self.ids, self.sizes, strict=True)
        return np.array([kept.get(name, size) for name, size in sizes], dtype=np.int64)

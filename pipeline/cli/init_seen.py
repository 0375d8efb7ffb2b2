"""What `rlp init` saw of images and network, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.data.prepare_encoded import LARGEST_HELD, USUAL_SIZE

if TYPE_CHECKING:
    from torch import nn

    from pipeline.channels.graph import ChannelGraph
    from pipeline.data.card import DataCard

Size = tuple[int, int]  # height, width
TIMED = 32  # images that the speed of a network is measured on

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel."""


@dataclass(frozen=True)
class Stored:
    """What the files hold: how many images of each size, and whether they are all grey."""

    classes: int
    sizes: Counter[Size]
    channels: int
    own_search: bool

    @property
    def uniform(self) -> bool:
        """Whether they can be used as they are."""
        if len(self.sizes) != 1:
            return False
        (height, width) = next(iter(self.sizes))
        return max(height, width) <= LARGEST_HELD or height == width <= USUAL_SIZE

    @property
    def middle(self) -> int:
        """Median of the shorter sides."""
        return sorted(min(size) for size in self.sizes.elements())[self.sizes.total() // 2]


@dataclass(frozen=True)
class LookedAt:
    """The network of a config that is there already.

    Attributes:
        speed: seconds an image of inference, and of a training step of `TIMED` images.
        process_bytes: that this process had taken at most before it was timed; on a GPU, after,
            as its libraries are loaded then.
        remarks: what was done to the network, and what is odd about it.
    """

    model: nn.Module
    graph: ChannelGraph
    speed: tuple[float, float]
    process_bytes: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """All that the config is written from.

    Attributes:
        side: of the images as the network sees them; None: as they are.
        scores: cross-entropy of given weights by way of normalising, the best first; empty without.
        smallest: share of the MACs that the most cut network keeps, by `search.align`.
        forward, step: seconds an image of inference, and of a training step.
        remarks: what was done to the network, and what is odd about it.
    """

    card: DataCard
    stored: Stored
    side: int | None
    graph: ChannelGraph
    macs: int
    params: int
    smallest: dict[int, float]
    batch_norms: bool
    normalisation: Normalisation | None
    scores: dict[str, tuple[float, float]]
    forward: float
    step: float
    remarks: tuple[str, ...]

"""One point of the space, and how a strategy came to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Counts

CountsKey = tuple[int, ...]
"""Counts as a dictionary key."""

WARM_START = "warm start"
"""`proposed_as` of the candidate that a strategy starts from."""


def key_of(counts: Counts) -> CountsKey:
    """Counts (G,), hashable."""
    return tuple(counts.tolist())


@dataclass(frozen=True)
class Candidate:
    """One candidate to be scored.

    Attributes:
        counts: units kept per group, (G,) int64.
        action: the numbers that the strategy drew, (G,) float64; kept in the journal.
        proposed_as: how the strategy came to it, such as "policy" or "warm start".
        eligible: whether it may become the plan; an intermediate step of `rlpruner` may not.
        step: candidates of different steps have different budgets, so scores are comparable only
            within one step.
    """

    counts: Counts
    action: NDArray[np.float64]
    proposed_as: str
    eligible: bool = True
    step: int = 0

    @property
    def key(self) -> CountsKey:
        """The counts, hashable."""
        return key_of(self.counts)

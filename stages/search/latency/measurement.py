"""What timing gives: plain numbers that journals, budgets and summaries keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.channels.counts import Counts


@dataclass(frozen=True)
class Measurement:
    """One candidate against the uncut network.

    Attributes:
        fraction: candidate / uncut, the median over short rounds.
        seconds, uncut_seconds: medians of candidate and uncut network.
        remeasured: whether it was timed again, for longer.
    """

    fraction: float
    seconds: float
    uncut_seconds: float
    remeasured: bool = False


class Timed(Protocol):
    """Times candidates, counts (G,) of the space (`stages.search.latency.CandidateTimer`)."""

    def measure(self, counts: Counts) -> Measurement:
        """Of one; a repeated one is answered from memory."""

    def remeasure(self, counts: Counts) -> Measurement:
        """Once more and for longer; the worse of both times."""


@dataclass(frozen=True)
class StartLatency:
    """The network that a round starts from, against the original in fp32.

    Attributes:
        fraction: of the original's latency, 1 in the first round of a search in fp32.
        original_seconds: the original's median.
    """

    fraction: float
    original_seconds: float

    @classmethod
    def from_dict(cls, document: object) -> StartLatency | None:
        """Inverse of `asdict`; None for anything else."""
        if not isinstance(document, dict):
            return None
        fraction, seconds = document.get("fraction"), document.get("original_seconds")
        if (
            isinstance(fraction, float)
            and isinstance(seconds, float)
            and min(fraction, seconds) > 0
        ):
            return cls(fraction, seconds)
        return None

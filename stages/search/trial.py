"""One candidate of a search and what it scored."""

from __future__ import annotations

from dataclasses import dataclass

from stages.search.evaluate import Outcome
from stages.search.strategies.base import Key, Proposal


@dataclass(frozen=True)
class Trial:
    """One candidate and what it scored.

    Attributes:
        phase: the strategy that proposed it, or "finalists".
        index: position within the phase, from 0.
        cached: whether the same counts had been scored before.
    """

    phase: str
    index: int
    proposal: Proposal
    outcome: Outcome
    cached: bool = False

    @property
    def key(self) -> Key:
        return self.proposal.key

"""One evaluation of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.search.space.candidate import WARM_START, Candidate, CountsKey


@dataclass(frozen=True)
class Outcome:
    """Result of one evaluation.

    Attributes:
        score: higher is better; of all images, or of the last rung that was reached.
        rungs: scores at the rungs, which decide about promotion.
        accuracy: top-1 as a fraction of the images that `score` is of.
        images: their number.
        stopped: whether the candidate was not promoted from a rung.
        seconds: wall time.
    """

    score: float
    rungs: tuple[float, ...]
    accuracy: float
    images: int
    stopped: bool
    seconds: float


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
    candidate: Candidate
    outcome: Outcome
    cached: bool = False

    @property
    def key(self) -> CountsKey:
        return self.candidate.key

    @property
    def complete(self) -> bool:
        """Whether it may become the plan and saw all images."""
        return self.candidate.eligible and not self.outcome.stopped


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Distinct complete candidates, best first; ties by first appearance."""
    first: dict[CountsKey, Trial] = {}
    for trial in trials:
        if trial.complete:
            first.setdefault(trial.key, trial)
    return sorted(first.values(), key=lambda trial: -trial.outcome.score)


def finalists(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best `count`, and where they are several also the warm start.

    Trials are noisy, and the warm start is known to be good.
    """
    leaders = ranked(trials)
    start = [trial for trial in leaders[count:] if trial.candidate.proposed_as == WARM_START]
    return leaders[:count] + (start if count > 1 else [])

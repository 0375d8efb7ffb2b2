"""Candidates that keep a latency budget by the clock, not only by the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.channels.counts import Counts
from stages.search.latency.measurement import Timed
from stages.search.space.candidate import Candidate, CountsKey
from stages.search.space.projection import Projector

TRIES = 4  # corrections of one candidate
AIM = 0.995  # of the budget, so that the next timing does not miss it by noise
_CLOSE = 0.97  # of that aim: nearer to the budget is not worth another timing
CORRECTIONS = 3  # of the table's limit, before a search: the last leaves a few percent


Resize = Callable[[Projector, Counts], Counts]
"""(onto another limit, counts (G,)) -> counts (G,) near those that fill it."""


def shifted(projector: Projector, counts: Counts) -> Counts:
    """Counts (G,) of the same distribution: all keep-ratio logits moved alike."""
    return projector.logits(projector.space.logits(counts))


@dataclass(frozen=True)
class MeasuredBudget:
    """A latency budget that timings decide about.

    Attributes:
        projector: onto the budget as predicted.
        share: the budget, as a fraction of the uncut network's latency.
        resize: how a candidate becomes smaller or larger.
    """

    timer: Timed
    projector: Projector
    share: float
    resize: Resize = shifted

    def corrected(self, solution: Callable[[Projector], Counts]) -> Projector:
        """Onto the limit, in the table's terms, at which `solution` measures within the budget.

        The table is fitted to candidates of all sizes. Those that a search ends with are unlike
        them, and all alike it errs on them by up to a third. What it says of one of them against
        another is far nearer, so the limit is moved and the table kept.

        Args:
            solution: counts (G,) within a projector's limit, of the kind that the search ends with.
        """
        projector, cost = self.projector, self.projector.cost
        least, most = cost.of(projector.space.least), cost.of(projector.space.sizes)
        for _ in range(CORRECTIONS):
            counts = solution(projector)
            wrong = self.timer.remeasure(counts).fraction / self.share
            if AIM * _CLOSE <= wrong <= 1:
                break
            limit = min(most, cost.of(counts) * AIM / wrong)
            projector = projector.with_limit(max(least, limit))
        return projector

    def keeps(self, candidate: Candidate) -> bool:
        """Whether a candidate measures within the budget."""
        return self.timer.measure(candidate.counts).fraction <= self.share

    def fitted(self, leaders: Sequence[Candidate]) -> list[Candidate]:
        """Leaders that measure within the budget, each cut a little more or less where it misses
        the budget or leaves much of it unused.

        Those for which no width within the budget was found in a few tries are left out.
        """
        found: dict[CountsKey, Candidate] = {}
        for leader in leaders:
            counts = self.nearest(leader.counts)
            if counts is None:
                continue
            how = leader.proposed_as
            if counts.tolist() != leader.counts.tolist():
                how = f"{how}, fitted to measured latency"
            candidate = Candidate(counts, leader.action, how)
            found.setdefault(candidate.key, candidate)
        return list(found.values())

    def nearest(self, wanted: Counts) -> Counts | None:
        """The largest candidate near this one that measures within the budget.

        None after a few tries that all missed it.
        """
        cost, least = self.projector.cost, self.projector.space.least
        limit, counts, best = cost.of(wanted), wanted, None
        for _ in range(TRIES):
            fraction = self.timer.measure(counts).fraction
            if fraction <= self.share:
                fraction = self.timer.remeasure(counts).fraction  # longer, so only what may be kept
            if fraction <= self.share and (best is None or cost.of(counts) > cost.of(best)):
                best = counts
            if AIM * _CLOSE <= fraction / self.share <= 1:
                break
            limit *= AIM * self.share / fraction
            other = self.projector.with_limit(max(limit, cost.of(least)))
            counts = self.resize(other, wanted)  # from the start, or corrections add up
        return best

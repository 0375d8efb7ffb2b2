"""Successive halving: which candidates are carried on, and what a strategy is told of those that
are not.

How far a few images are from the original's answers says little about what training will mend; how
important the cut channels were says much of the rest, and costs nothing
(`tests/bench/fidelity.py`). So candidates are compared by a forecast of their score from both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.search.evaluate import GLANCES
from stages.search.executor import Bars
from stages.search.forecast import Forecast
from stages.search.space import Counts
from stages.search.trial import Trial

Removed = Callable[[Counts], float]
"""counts (G,) -> importance of what such a candidate cuts, in any unit."""

ENOUGH = 8  # scored candidates before a forecast means anything
CARRIED = 0.25  # halving: the share of candidates that is carried on from each glance
WINDOW = 32  # latest candidates that a bar is drawn from
AHEAD = 8  # next candidates over which a share that was missed is made up for


@dataclass(frozen=True)
class Hurdles:
    """Forecasts after each glance, and the score they must promise for a candidate to be carried
    on.

    A policy that learns proposes ever more that would pass; the next ones are let through only as
    far as makes up for what passed so far, down to none but those that promise more than all of the
    latest.
    """

    steps: tuple[tuple[Forecast, float], ...]
    removed: Removed

    @classmethod
    def of(cls, trials: Sequence[Trial], removed: Removed) -> Hurdles:
        """From the trials so far."""
        steps = []
        for glance, forecast in enumerate(_forecasts(trials, removed)):
            known = [t for t in trials if len(t.outcome.rungs) > glance]
            met = known[ENOUGH:]  # before them there was no bar
            passed = sum(not t.outcome.stopped or len(t.outcome.rungs) > glance + 1 for t in met)
            share = float(np.clip((CARRIED * (len(met) + AHEAD) - passed) / AHEAD, 0, 2 * CARRIED))
            hopes = [
                forecast(t.outcome.rungs[glance], removed(t.proposal.counts))
                for t in known[-WINDOW:]
            ]
            steps.append((forecast, float(np.quantile(hopes, 1 - share))))
        return cls(tuple(steps), removed)

    def bars(self, counts: Counts) -> Bars:
        """Least score at each glance for this candidate; where nothing is known yet, none."""
        bars = [forecast.needed(score, self.removed(counts)) for forecast, score in self.steps]
        return (*bars, *(-math.inf,) * (len(GLANCES) - len(bars)))


def estimates(trials: Sequence[Trial], removed: Removed) -> list[float]:
    """Scores as a strategy is told them: of a candidate that was stopped, what its last glance
    promised.
    """
    forecasts = _forecasts(trials, removed)
    told = []
    for trial in trials:
        outcome, last = trial.outcome, len(trial.outcome.rungs) - 1
        guessed = outcome.stopped and last < len(forecasts)
        promised = (
            forecasts[last](outcome.rungs[last], removed(trial.proposal.counts))
            if guessed
            else outcome.score
        )
        told.append(promised)
    return told


def _forecasts(trials: Sequence[Trial], removed: Removed) -> list[Forecast]:
    """One a glance, for as many as enough candidates went beyond."""
    found = []
    for glance in range(len(GLANCES)):
        whole = [t for t in trials if not t.outcome.stopped and len(t.outcome.rungs) > glance]
        if len(whole) < ENOUGH:
            break
        glances = [t.outcome.rungs[glance] for t in whole]
        lost = [removed(t.proposal.counts) for t in whole]
        found.append(Forecast.fit(glances, lost, [t.outcome.score for t in whole]))
    return found

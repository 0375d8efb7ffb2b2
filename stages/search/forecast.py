"""What a glance promises: which candidates are carried on, and what a strategy is told of those that are not.

How far a few images are from the original's answers says little about what training will mend; how important
the cut channels were says much of the rest, and costs nothing (`tests/bench/fidelity.py`). So candidates are
compared by a forecast of their score from both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.search.evaluate import GLANCES
from stages.search.executor import Bars
from stages.search.space import Counts
from stages.search.trial import Trial

Removed = Callable[[Counts], float]
"""counts (G,) -> importance of what such a candidate cuts, in any unit."""

ENOUGH = 8  # scored candidates before a forecast means anything
CARRIED = 0.25  # halving: the share of candidates that is carried on from each glance
WINDOW = 32  # latest candidates that a bar is drawn from: a policy that learns must not carry on all it proposes
RIDGE = 0.5  # in observations: with few of them, forecasts stay near their mean


@dataclass(frozen=True)
class Forecast:
    """score = level + slope * glance + loss * removed, by least squares.

    Attributes:
        slope: at least 0.
        loss: at most 0.
    """

    level: float
    slope: float
    loss: float

    @classmethod
    def fit(cls, glances: Sequence[float], removed: Sequence[float], scores: Sequence[float]) -> Forecast:
        """From candidates that were scored as a whole; a term that comes out with the wrong sign is left out."""
        columns, target = np.array([glances, removed]).T, np.array(scores)
        middle, spread = columns.mean(axis=0), columns.std(axis=0)
        weights, used = np.zeros(2), spread > 1e-12 * (1 + np.abs(middle))
        while used.any():
            scaled = (columns[:, used] - middle[used]) / spread[used]
            gram = scaled.T @ scaled + RIDGE * np.eye(len(scaled.T))
            weights = np.zeros(2)
            weights[used] = np.linalg.solve(gram, scaled.T @ (target - target.mean())) / spread[used]
            wrong = weights * (1, -1) < 0
            weights, used = np.where(wrong, 0.0, weights), used & ~wrong
            if not wrong.any():
                break
        return cls(float(target.mean() - weights @ middle), float(weights[0]), float(weights[1]))

    def __call__(self, glance: float, removed: float) -> float:
        return self.level + self.slope * glance + self.loss * removed

    def needed(self, score: float, removed: float) -> float:
        """The glance that promises `score`."""
        rest = score - self.level - self.loss * removed
        if self.slope > 0:
            return rest / self.slope
        return math.inf if rest > 0 else -math.inf


@dataclass(frozen=True)
class Hurdles:
    """Forecasts after each glance, and the score they must promise for a candidate to be carried on.

    A policy that learns proposes ever more that would pass; the hurdle rises by as much as too many did.
    """

    steps: tuple[tuple[Forecast, float], ...]
    removed: Removed

    @classmethod
    def of(cls, trials: Sequence[Trial], removed: Removed) -> Hurdles:
        """From the trials so far."""
        steps = []
        for glance, forecast in enumerate(_forecasts(trials, removed)):
            known = [t for t in trials if len(t.outcome.rungs) > glance][-WINDOW:]
            passed = float(np.mean([not t.outcome.stopped or len(t.outcome.rungs) > glance + 1 for t in known]))
            share = CARRIED * min(1.0, CARRIED / passed) if passed else CARRIED
            hopes = [forecast(t.outcome.rungs[glance], removed(t.proposal.counts)) for t in known]
            steps.append((forecast, float(np.quantile(hopes, 1 - share))))
        return cls(tuple(steps), removed)

    def bars(self, counts: Counts) -> Bars:
        """Least score at each glance for this candidate; where nothing is known yet, none."""
        bars = [forecast.needed(score, self.removed(counts)) for forecast, score in self.steps]
        return (*bars, *(-math.inf,) * (len(GLANCES) - len(bars)))


def estimates(trials: Sequence[Trial], removed: Removed) -> list[float]:
    """Scores as a strategy is told them: of a candidate that was stopped, what its last glance promised."""
    forecasts = _forecasts(trials, removed)
    told = []
    for trial in trials:
        outcome, last = trial.outcome, len(trial.outcome.rungs) - 1
        guessed = outcome.stopped and last < len(forecasts)
        promised = forecasts[last](outcome.rungs[last], removed(trial.proposal.counts)) if guessed else outcome.score
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

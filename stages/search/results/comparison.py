"""What strategies at equal evaluations found; intervals say "not shown" when it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

_PERMUTATIONS = 5000
_MARKS = 6  # times at which scores are compared


@dataclass(frozen=True)
class StrategyRun:
    """One strategy with one seed.

    Attributes:
        score, accuracy: of its best candidate, by the common final evaluation.
        counts: units that candidate keeps, in the order of the space.
        cost: in the budget's metric; predicted, where the metric is latency.
        evaluations: candidates scored; `distinct` of them differ.
        seconds: that the evaluations took.
        table_seconds: that the loss table took, where the strategy starts from it.
        course: the best score so far whenever it rose, as (trials, seconds, score); the seconds are
            those of the evaluations and of the table.
        measured: latency as a fraction of the original's, where it was timed.
        recovered: accuracy after recovery, as a fraction; None when there was none.
        copied: taken over from the first seed, because no seed changes this strategy.
    """

    strategy: str
    seed: int
    evaluations: int
    distinct: int
    score: float
    accuracy: float
    counts: tuple[int, ...]
    cost: float
    seconds: float
    measured: float | None = None
    recovered: float | None = None
    recovery_seconds: float | None = None
    copied: bool = False
    table_seconds: float = 0.0
    course: tuple[tuple[int, float, float], ...] = ()

    def best_after(self, seconds: float) -> float | None:
        """The best score within so many seconds; None where there is none yet."""
        found = [score for _, at, score in self.course if at <= seconds]
        return found[-1] if found else None


@dataclass(frozen=True)
class Difference:
    """How much better the reference strategy is than another, paired by seed.

    Attributes:
        measure: "score" or "recovered".
        low, high: ends of the two-sided 95 % interval of the mean.
    """

    strategy: str
    measure: str
    seeds: int
    mean: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "not shown"; of the reference."""
        return "not shown" if not self.shown else "better" if self.mean > 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: None for the ends of an interval that has none."""
        ends = {"low": self.low, "high": self.high}
        finite = {end: value if math.isfinite(value) else None for end, value in ends.items()}
        return {**asdict(self), **finite, "verdict": self.verdict}


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of search score and recovered accuracy over distinct candidates.

    Attributes:
        p: two-sided, by permutation; below 0.05 it is called shown.
    """

    value: float
    candidates: int
    p: float


@dataclass(frozen=True)
class StrategyComparison:
    """All runs, and what they show about the first strategy."""

    runs: tuple[StrategyRun, ...]
    differences: tuple[Difference, ...]
    correlation: RankCorrelation | None

    @classmethod
    def of(cls, runs: Sequence[StrategyRun]) -> StrategyComparison:
        """From runs ordered by strategy, every one with the same seeds."""
        return cls(tuple(runs), tuple(differences(runs)), rank_correlation(runs))

    def table(self) -> list[dict[str, Any]]:
        """One row a strategy: mean and sample standard deviation over the seeds that were run."""
        names = dict.fromkeys(run.strategy for run in self.runs)
        return [_row([run for run in self.runs if run.strategy == name]) for name in names]

    def over_seconds(self) -> list[dict[str, Any]]:
        """Mean best score of every strategy after as many seconds: powers of two, the last the
        longest search's. Where a seed has no score by then, none is given.
        """
        searched = [run for run in self.runs if run.course and not run.copied]
        if not searched:
            return []
        last = max(run.table_seconds + run.seconds for run in searched)
        marks = [last / 2**power for power in reversed(range(_MARKS))]
        return [
            {"strategy": name, "seconds": marks, "scores": [_mean_after(own, m) for m in marks]}
            for name in dict.fromkeys(run.strategy for run in searched)
            if (own := [run for run in searched if run.strategy == name])
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        found = self.correlation
        return {
            "table": self.table(),
            "over_seconds": self.over_seconds(),
            "differences": [difference.to_dict() for difference in self.differences],
            "rank_correlation_score_recovered": found.value if found else None,
            "rank_correlation_p": found.p if found else None,
            "rank_correlation_candidates": found.candidates if found else None,
            "runs": [asdict(run) for run in self.runs],
        }


def _row(runs: Sequence[StrategyRun]) -> dict[str, Any]:
    """Of one strategy; copies count only where they were recovered on their own."""
    searched = [run for run in runs if not run.copied]
    measured = [run.measured for run in searched if run.measured is not None]
    return {
        "strategy": runs[0].strategy,
        "seeds": len(searched),
        "evaluations": searched[0].evaluations,
        **_spread("score", [run.score for run in searched]),
        **_spread("accuracy", [run.accuracy for run in searched]),
        **_spread("recovered", [run.recovered for run in runs if run.recovered is not None]),
        "cost": float(np.mean([run.cost for run in searched])),
        "measured": float(np.mean(measured)) if measured else None,
        "seconds": float(np.mean([run.seconds for run in searched])),
        "table_seconds": searched[0].table_seconds,
    }


def _mean_after(runs: Sequence[StrategyRun], seconds: float) -> float | None:
    scores = [run.best_after(seconds) for run in runs]
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if len(known) == len(scores) else None


def _spread(measure: str, values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {}
    return {
        measure: float(np.mean(values)),
        f"{measure}_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        f"{measure}_seeds": len(values),
    }


def differences(runs: Sequence[StrategyRun]) -> list[Difference]:
    """First strategy minus every other, over the seeds that both have a value for.

    Where both are copies, one value repeated shows nothing.
    """
    names = list(dict.fromkeys(run.strategy for run in runs))
    by_name = {name: [run for run in runs if run.strategy == name] for name in names}
    found = []
    for name in names[1:]:
        pairs = list(zip(by_name[names[0]], by_name[name], strict=True))
        for measure in ("score", "recovered"):
            both = [
                (getattr(reference, measure), getattr(other, measure))
                for reference, other in pairs
                if measure != "score" or not (reference.copied and other.copied)
            ]
            gaps = [a - b for a, b in both if a is not None and b is not None]
            if gaps:
                found.append(Difference(name, measure, len(gaps), *interval(gaps)))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its two-sided 95 % t-interval; infinite for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, -math.inf, math.inf
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    half = float(special.stdtrit(len(values) - 1, 0.975) * error)
    return mean, mean - half, mean + half


def rank_correlation(runs: Sequence[StrategyRun]) -> RankCorrelation | None:
    """One point a distinct candidate, its recoveries averaged.

    None without recovery or without spread.
    """
    points: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for run in runs:
        if run.recovered is not None:
            points.setdefault(run.counts, []).append((run.score, run.recovered))
    if len(points) < 3:  # two always correlate
        return None
    means = np.array([np.mean(pairs, axis=0) for pairs in points.values()])
    from scipy import stats  # takes every command a second to import

    # Pearson's correlation of ranks is Spearman's, and takes a permutation test
    score, recovered = stats.rankdata(means, axis=0).T
    if score.std() == 0 or recovered.std() == 0:
        return None
    chance = stats.PermutationMethod(n_resamples=_PERMUTATIONS, rng=np.random.default_rng(0))
    found = stats.pearsonr(score, recovered, method=chance)
    return RankCorrelation(float(found.statistic), len(points), float(found.pvalue))

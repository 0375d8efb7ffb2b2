"""Strategies at equal evaluations: one table with spread, and intervals that say "not shown" when
it is not.

Every strategy gets the same number of candidates, seeds, images and the same budget. Its leaders
are then scored by one common judge, on more images and after more training than the trials saw, as
a search's finalists are; its best is what that judge prefers, which, if a recovery is given, is
scored after it too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from stages.search.engine import Search, finalists
from stages.search.executor import Executor, InProcess
from stages.search.setup import Setup
from stages.search.space import Counts
from stages.search.strategies import SEEDLESS

Recover = Callable[[Counts, int], float]
Fitter = Callable[[Counts], tuple[Counts, float | None]]
_PERMUTATIONS = 5000

# two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom
_T95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)


@dataclass(frozen=True)
class Run:
    """One strategy with one seed.

    Attributes:
        score, accuracy: of its best candidate, by the common judge.
        counts: units that candidate keeps, in the order of the space.
        cost: in the budget's metric; predicted, where the metric is latency.
        evaluations: candidates scored; `distinct` of them differ.
        seconds: that the evaluations took.
        measured: latency as a fraction of the base's, where it was timed.
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


@dataclass(frozen=True)
class Difference:
    """How much better the reference strategy is than another, paired by seed.

    `shown` when the 95 % interval of the mean excludes 0.
    """

    strategy: str
    measure: str
    seeds: int
    mean: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "not shown"; of the reference."""
        return "not shown" if not self.shown else "better" if self.mean > 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: None for the ends of an interval that has none."""
        ends = {
            end: value if math.isfinite(value) else None
            for end, value in (("low", self.low), ("high", self.high))
        }
        return {**asdict(self), **ends, "verdict": self.verdict}


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of search score and recovered accuracy over distinct candidates.

    Attributes:
        p: two-sided, by permutation; below 0.05 it is called shown.
    """

    value: float
    candidates: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """All runs, and what they show about the first strategy."""

    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]
    correlation: Correlation | None

    def table(self) -> list[dict[str, Any]]:
        """One row a strategy: mean and sample standard deviation over the seeds that were run."""
        rows = []
        for name in dict.fromkeys(run.strategy for run in self.runs):
            every = [run for run in self.runs if run.strategy == name]
            searched = [run for run in every if not run.copied]
            row: dict[str, Any] = {
                "strategy": name,
                "seeds": len(searched),
                "evaluations": searched[0].evaluations,
            }
            for measure, runs in (
                ("score", searched),
                ("accuracy", searched),
                ("recovered", every),
            ):
                values = [value for run in runs if (value := getattr(run, measure)) is not None]
                if values:
                    row[measure] = float(np.mean(values))
                    row[f"{measure}_sd"] = (
                        float(np.std(values, ddof=1)) if len(values) > 1 else None
                    )
                    row[f"{measure}_seeds"] = len(values)
            row["cost"] = float(np.mean([run.cost for run in searched]))
            timed = [run.measured for run in searched if run.measured is not None]
            row["measured"] = float(np.mean(timed)) if timed else None
            row["seconds"] = float(np.mean([run.seconds for run in searched]))
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        differences = [d.to_dict() for d in self.differences]
        found = self.correlation
        return {
            "table": self.table(),
            "differences": differences,
            "rank_correlation_score_recovered": found.value if found else None,
            "rank_correlation_p": found.p if found else None,
            "rank_correlation_candidates": found.candidates if found else None,
            "runs": [asdict(run) for run in self.runs],
        }


def compare(
    setup: Setup,
    strategies: Sequence[str],
    seeds: Sequence[int],
    *,
    trials: int | None = None,
    recover: Recover | None = None,
    recover_seeds: Sequence[int] | None = None,
    fit: Fitter | None = None,
    executor: Executor | None = None,
    on_run: Callable[[int, int, Run], None] = lambda done, total, run: None,
    known: Mapping[tuple[str, int], Run] | None = None,
) -> Comparison:
    """Run every strategy with every seed; the first is the one that the others are compared with.

    All searches come first, then the recoveries. Strategies that no seed changes search once.

    Args:
        trials: evaluations each; the setting's when absent. Strategies that do not search use one.
        recover: `(counts, seed) -> accuracy` of the candidate after distillation. recover_seeds:
        those of `seeds` whose best candidates are recovered; all when absent. fit: `counts ->
        (counts, measured fraction)`, brings a best candidate within a measured budget. on_run:
        called with (done, total, run) after every search and again after every recovery. known:
        runs made before; what they hold is not repeated.
    """
    known = known or {}
    again = seeds if recover_seeds is None else [seed for seed in seeds if seed in recover_seeds]
    fresh = [
        (name, seed)
        for seed in seeds
        for name in strategies
        if seed == seeds[0] or name not in SEEDLESS
    ]
    total = len(fresh) + (len(again) * len(strategies) if recover else 0)
    runs: dict[tuple[str, int], Run] = {}
    for done, (name, seed) in enumerate(fresh):
        runs[name, seed] = known.get((name, seed)) or _run(setup, name, seed, trials, fit, executor)
        on_run(done + 1, total, runs[name, seed])
    for name, seed in [(name, seed) for seed in seeds for name in strategies]:
        if (name, seed) not in runs:
            first = replace(runs[name, seeds[0]], seed=seed, seconds=0.0, copied=True)
            first = replace(first, recovered=None, recovery_seconds=None)
            runs[name, seed] = known.get((name, seed)) or first
    if recover:
        memo = {(run.counts, run.seed): run for run in runs.values() if run.recovered is not None}
        for done, key in enumerate((name, seed) for seed in again for name in strategies):
            runs[key] = _recovered(runs[key], memo, recover)
            on_run(len(fresh) + done + 1, total, runs[key])
    ordered = tuple(runs[name, seed] for name in strategies for seed in seeds)
    return Comparison(ordered, tuple(_differences(ordered, strategies)), correlation(ordered))


def _recovered(run: Run, memo: dict[tuple[tuple[int, ...], int], Run], recover: Recover) -> Run:
    """With accuracy after recovery; the same candidate and seed are not recovered twice."""
    if run.recovered is None:
        start, twin = time.perf_counter(), memo.get((run.counts, run.seed))
        value = twin.recovered if twin else recover(np.array(run.counts, dtype=np.int64), run.seed)
        run = replace(run, recovered=value, recovery_seconds=time.perf_counter() - start)
    memo[run.counts, run.seed] = run
    return run


def _run(
    setup: Setup,
    name: str,
    seed: int,
    trials: int | None,
    fit: Fitter | None,
    executor: Executor | None,
) -> Run:
    count = trials or setup.settings.trials
    search = Search(
        executor or InProcess(setup.evaluator),
        halving=setup.settings.halving,
        removed=setup.removed,
    )
    done = search.run(name, setup.strategy(name, trials=count, seed=seed), count)
    judge = setup.final_evaluator() or setup.evaluator
    leaders = [trial.proposal.counts for trial in finalists(done, setup.settings.finalists)]
    fitted = [fit(counts) if fit else (counts, None) for counts in leaders]
    within = [
        found for found in fitted if found[1] is None or found[1] <= setup.share
    ]  # larger ones score better
    judged, (counts, measured) = max(
        ((judge(found[0]), found) for found in within or fitted), key=lambda pair: pair[0].score
    )
    return Run(
        strategy=name,
        seed=seed,
        evaluations=len(done),
        distinct=len({trial.key for trial in done}),
        score=judged.score,
        accuracy=judged.accuracy,
        counts=tuple(counts.tolist()),
        cost=setup.projector.cost.of(counts),
        seconds=sum(trial.outcome.seconds for trial in done if not trial.cached),
        measured=measured,
    )


def _differences(runs: Sequence[Run], strategies: Sequence[str]) -> list[Difference]:
    """Reference minus other, over the seeds that both have a value for; copies of one value
    show nothing.
    """
    reference = [run for run in runs if run.strategy == strategies[0]]
    found = []
    for name in strategies[1:]:
        other = [run for run in runs if run.strategy == name]
        for measure in ("score", "recovered"):
            both = [
                (getattr(a, measure), getattr(b, measure))
                for a, b in zip(reference, other, strict=True)
                if measure != "score" or not (a.copied and b.copied)
            ]
            gaps = [a - b for a, b in both if a is not None and b is not None]
            if gaps:
                found.append(Difference(name, measure, len(gaps), *interval(gaps)))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its two-sided 95 % t-interval; infinite for a single value."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, -math.inf, math.inf
    quantile = _T95[count - 2] if count - 2 < len(_T95) else 2.12
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean, mean - half, mean + half


def correlation(runs: Sequence[Run]) -> Correlation | None:
    """One point a distinct candidate, its recoveries averaged; None without recovery or without
    spread.
    """
    points: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for run in runs:
        if run.recovered is not None:
            points.setdefault(run.counts, []).append((run.score, run.recovered))
    if len(points) < 3:
        return None
    score, recovered = (
        _ranks(column) for column in np.array([np.mean(p, axis=0) for p in points.values()]).T
    )
    if score.std() == 0 or recovered.std() == 0:
        return None
    value, rng = float(np.corrcoef(score, recovered)[0, 1]), np.random.default_rng(0)
    score, recovered = (
        (score - score.mean()) / score.std(),
        (recovered - recovered.mean()) / recovered.std(),
    )
    drawn = (
        np.array([rng.permutation(score) for _ in range(_PERMUTATIONS)]) @ recovered / len(score)
    )
    extreme = int((np.abs(drawn) >= abs(value) - 1e-9).sum())
    return Correlation(value, len(points), (extreme + 1) / (_PERMUTATIONS + 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]

"""Strategies at equal evaluations: one table with spread, and intervals that say "not shown" when it is not.

Every strategy gets the same number of candidates, seeds, images and the same budget. Its best is then scored
by one common judge, on more images than the trials saw, and, if a recovery is given, after it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stages.search.engine import Search, ranked
from stages.search.executor import Executor, InProcess
from stages.search.setup import Setup
from stages.search.space import Counts

Recover = Callable[[Counts, int], float]

# two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Run:
    """One strategy with one seed.

    Attributes:
        score, accuracy: of its best candidate, by the common judge, before recovery.
        recovered: accuracy after recovery, as a fraction; None when there was none.
        evaluations: candidates scored; `distinct` of them differ.
    """

    strategy: str
    seed: int
    evaluations: int
    distinct: int
    score: float
    accuracy: float
    cost: float
    recovered: float | None
    seconds: float


@dataclass(frozen=True)
class Difference:
    """How much better the reference strategy is than another, paired by seed.

    `shown` when the 95 % interval of the mean excludes 0.
    """

    strategy: str
    measure: str
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


@dataclass(frozen=True)
class Comparison:
    """All runs, and what they show about the first strategy."""

    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]
    correlation: float | None

    def table(self) -> list[dict[str, Any]]:
        """One row a strategy: mean and sample standard deviation over seeds."""
        rows = []
        for name in dict.fromkeys(run.strategy for run in self.runs):
            own = [run for run in self.runs if run.strategy == name]
            row: dict[str, Any] = {"strategy": name, "seeds": len(own), "evaluations": own[0].evaluations}
            for measure in ("score", "accuracy", "recovered"):
                values = [value for run in own if (value := getattr(run, measure)) is not None]
                if values:
                    row[measure] = float(np.mean(values))
                    row[f"{measure}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        differences = [{**asdict(d), "verdict": d.verdict} for d in self.differences]
        return {
            "table": self.table(),
            "differences": differences,
            "rank_correlation_score_recovered": self.correlation,
            "runs": [asdict(run) for run in self.runs],
        }


def compare(
    setup: Setup,
    strategies: Sequence[str],
    seeds: Sequence[int],
    *,
    trials: int | None = None,
    recover: Recover | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int, Run], None] = lambda done, total, run: None,
    known: Mapping[tuple[str, int], Run] | None = None,
) -> Comparison:
    """Run every strategy with every seed; the first is the one that the others are compared with.

    Args:
        trials: evaluations each; the setting's when absent. Strategies that do not search use one.
        recover: `(counts, seed) -> accuracy` of the candidate after distillation.
        known: runs made before, which are not repeated.
    """
    runs: dict[tuple[str, int], Run] = {}
    total = len(strategies) * len(seeds)
    for seed in seeds:
        for name in strategies:
            run = (known or {}).get((name, seed)) or _run(setup, name, seed, trials, recover, executor)
            runs[name, seed] = run
            progress(len(runs), total, run)
    ordered = tuple(runs[name, seed] for name in strategies for seed in seeds)
    return Comparison(ordered, tuple(_differences(ordered, strategies)), _correlation(ordered))


def _run(
    setup: Setup, name: str, seed: int, trials: int | None, recover: Recover | None, executor: Executor | None
) -> Run:
    count = trials or setup.settings.trials
    search = Search(executor or InProcess(setup.evaluator), halving=setup.settings.halving)
    done = search.run(name, setup.strategy(name, trials=count, seed=seed), count)
    counts = ranked(done)[0].proposal.counts
    judged = (setup.final_evaluator() or setup.evaluator)(counts)
    return Run(
        strategy=name,
        seed=seed,
        evaluations=len(done),
        distinct=len({trial.key for trial in done}),
        score=judged.score,
        accuracy=judged.accuracy,
        cost=setup.projector.cost.of(counts),
        recovered=recover(counts, seed) if recover else None,
        seconds=sum(trial.outcome.seconds for trial in done if not trial.cached),
    )


def _differences(runs: Sequence[Run], strategies: Sequence[str]) -> list[Difference]:
    reference = [run for run in runs if run.strategy == strategies[0]]
    found = []
    for name in strategies[1:]:
        other = [run for run in runs if run.strategy == name]
        for measure in ("score", "recovered"):
            pairs = [(getattr(a, measure), getattr(b, measure)) for a, b in zip(reference, other, strict=True)]
            if all(a is not None and b is not None for a, b in pairs):
                found.append(Difference(name, measure, *interval([a - b for a, b in pairs])))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its two-sided 95 % t-interval; infinite for a single value."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, -math.inf, math.inf
    quantile = _T95[count - 2] if count - 2 < len(_T95) else 2.12
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean, mean - half, mean + half


def _correlation(runs: Sequence[Run]) -> float | None:
    """Spearman's rank correlation of search score and recovered accuracy; None without recovery or spread."""
    pairs = [(run.score, run.recovered) for run in runs if run.recovered is not None]
    if len(pairs) < 3:
        return None
    score, recovered = (_ranks(np.array(column)) for column in zip(*pairs, strict=True))
    if score.std() == 0 or recovered.std() == 0:
        return None
    return float(np.corrcoef(score, recovered)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]

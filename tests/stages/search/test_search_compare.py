"""The comparison is fair, and claims nothing that the seeds do not show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from search_nets import setup

from stages.search.compare import Comparison, Difference, Run, compare, interval
from stages.search.compare import _correlation as correlation


def test_every_searching_strategy_gets_the_same_evaluations_and_keeps_the_budget() -> None:
    ready = setup(trials=12, images=60)
    found = compare(ready, ["rl", "random", "uniform"], [0, 1], recover=lambda counts, seed: 0.5 + seed / 10)
    assert [(run.strategy, run.evaluations) for run in found.runs] == [
        ("rl", 12), ("rl", 12), ("random", 12), ("random", 12), ("uniform", 1), ("uniform", 1),
    ]  # fmt: skip
    assert all(run.cost <= ready.projector.limit for run in found.runs)
    rows = {row["strategy"]: row for row in found.table()}
    assert rows["rl"]["score"] >= rows["uniform"]["score"]
    assert rows["uniform"]["score_sd"] == 0
    assert rows["random"]["recovered"] == pytest.approx(0.55)
    assert {(d.strategy, d.measure) for d in found.differences} == {
        (name, measure) for name in ("random", "uniform") for measure in ("score", "recovered")
    }
    assert found.to_dict()["runs"][0]["strategy"] == "rl"


def test_known_runs_are_not_repeated() -> None:
    ready = setup(trials=4, images=20)
    known = {("random", 0): Run("random", 0, 4, 4, -0.1, 0.9, 1.0, None, 0.0)}
    seen: list[Run] = []
    compare(ready, ["random", "uniform"], [0], known=known, progress=lambda done, total, run: seen.append(run))
    assert seen[0] is known["random", 0]
    assert seen[1].strategy == "uniform"


def test_interval_is_students() -> None:
    """scipy.stats.t.interval(0.95, 4, mean, sem) for these five."""
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, low, high) == (3.0, pytest.approx(1.0368, abs=1e-3), pytest.approx(4.9632, abs=1e-3))
    assert interval([1.0])[1:] == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("values", "verdict"), [((1.0, 1.1, 0.9), "better"), ((-1.0, -1.1, -0.9), "worse"), ((1.0, -1.0, 0.5), "not shown")]
)
def test_verdict_needs_an_interval_without_zero(values: tuple[float, ...], verdict: str) -> None:
    assert Difference("x", "score", *interval(values)).verdict == verdict


def test_rank_correlation_ignores_scale_and_shares_ties() -> None:
    def runs(pairs: list[tuple[float, float]]) -> list[Run]:
        return [Run("s", i, 1, 1, score, 0.0, 1.0, recovered, 0.0) for i, (score, recovered) in enumerate(pairs)]

    assert correlation(runs([(1, 0.1), (10, 0.2), (100, 0.9)])) == pytest.approx(1.0)
    assert correlation(runs([(1, 0.9), (10, 0.2), (100, 0.1)])) == pytest.approx(-1.0)
    assert correlation(runs([(1, 0.5), (2, 0.5), (3, 0.5)])) is None
    tied = [(1, 1.0), (1, 2.0), (2, 3.0), (3, 3.0)]
    expected = np.corrcoef([0.5, 0.5, 2, 3], [0, 1, 2.5, 2.5])[0, 1]
    assert correlation(runs(tied)) == pytest.approx(expected)
    assert isinstance(Comparison((), (), None).table(), list)

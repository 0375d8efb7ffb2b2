"""The comparison claims nothing that the seeds do not show."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from stages.search.latency import Measurement
from stages.search.results import (
    Difference,
    FinishedRuns,
    RankCorrelation,
    StrategyComparison,
    StrategyRun,
    interval,
    rank_correlation,
)


def test_interval_is_students() -> None:
    """scipy.stats.t.interval(0.95, 4, mean, sem) for these five."""
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, low, high) == (
        3.0,
        pytest.approx(1.0368, abs=1e-3),
        pytest.approx(4.9632, abs=1e-3),
    )
    assert interval([1.0])[1:] == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((1.0, 1.1, 0.9), "better"), ((-1.0, -1.1, -0.9), "worse"), ((1.0, -1.0, 0.5), "not shown")],
)
def test_verdict_needs_an_interval_without_zero(values: tuple[float, ...], verdict: str) -> None:
    assert Difference("x", "score", len(values), *interval(values)).verdict == verdict


def test_rank_correlation_ignores_scale_and_shares_ties() -> None:
    def value(pairs: list[tuple[float, float]]) -> float:
        runs = [
            StrategyRun("s", i, 1, 1, score, 0.0, (i,), 1.0, 0.0, None, after)
            for i, (score, after) in enumerate(pairs)
        ]
        found = rank_correlation(runs)
        assert found is not None
        assert found.candidates == len(pairs)
        return found.value

    assert value([(1, 0.1), (10, 0.2), (100, 0.9)]) == pytest.approx(1.0)
    assert value([(1, 0.9), (10, 0.2), (100, 0.1)]) == pytest.approx(-1.0)
    tied = [(1, 1.0), (1, 2.0), (2, 3.0), (3, 3.0)]
    assert value(tied) == pytest.approx(np.corrcoef([0.5, 0.5, 2, 3], [0, 1, 2.5, 2.5])[0, 1])
    assert isinstance(StrategyComparison((), (), None).table(), list)


def test_rank_correlation_counts_a_candidate_once_and_needs_spread() -> None:
    def run(key: int, score: float, recovered: float) -> StrategyRun:
        return StrategyRun("s", 0, 1, 1, score, 0.0, (key,), 1.0, 0.0, None, recovered)

    twice = [run(1, 1.0, 0.2), run(1, 1.0, 0.4), run(2, 2.0, 0.5), run(3, 3.0, 0.6)]
    assert rank_correlation(twice).candidates == 3  # type: ignore[union-attr]
    assert rank_correlation([run(i, float(i), 0.5) for i in range(4)]) is None
    assert rank_correlation(twice[:2]) is None


def test_permutations_tell_a_real_correlation_from_chance() -> None:
    """scipy.stats.spearmanr on these: 1.0, and 0.0545 with p = 0.88."""

    def found(recovered: list[float]) -> RankCorrelation:
        runs = [
            StrategyRun("s", 0, 1, 1, i, 0.0, (i,), 1.0, 0.0, None, value)
            for i, value in enumerate(recovered)
        ]
        result = rank_correlation(runs)
        assert result is not None
        return result

    assert found([float(i) for i in range(10)]).p < 0.01
    chance = found([3.0, 7.0, 1.0, 9.0, 0.0, 5.0, 8.0, 2.0, 6.0, 4.0])
    assert chance.value == pytest.approx(0.0545, abs=1e-4)
    assert chance.p == pytest.approx(0.88, abs=0.03)


def test_finished_runs_are_found_again_by_what_they_are_of(tmp_path: Path) -> None:
    run = StrategyRun("rl", 0, 4, 4, -0.1, 0.9, (8, 16), 1.0, 0.0)
    finished = FinishedRuns(tmp_path, {"trials": 4})
    finished.add(run)
    finished.add_measurement((8, 16), Measurement(0.5, 1e-3, 2e-3, True))
    again = FinishedRuns(tmp_path, {"trials": 4})
    assert again.runs == {("rl", 0): run}
    assert again.measured == finished.measured
    assert FinishedRuns(tmp_path, {"trials": 5}).runs == {}


def test_a_course_is_found_again_and_read_at_any_second(tmp_path: Path) -> None:
    course = ((1, 5.0, -0.3), (4, 9.0, -0.1))
    run = StrategyRun("rl", 0, 4, 4, -0.1, 0.9, (8,), 1.0, 6.0, table_seconds=4.0, course=course)
    FinishedRuns(tmp_path, {}).add(run)
    assert FinishedRuns(tmp_path, {}).runs == {("rl", 0): run}
    assert [run.best_after(seconds) for seconds in (4, 5, 8.9, 20)] == [None, -0.3, -0.3, -0.1]


def test_scores_over_seconds_count_the_table_and_wait_for_every_seed() -> None:
    def run(strategy: str, seed: int, first: float, table: float) -> StrategyRun:
        course = ((1, first, -0.4), (2, 16.0, -0.2 * (seed + 1)))
        return StrategyRun(
            strategy, seed, 2, 2, -0.2, 0.9, (8,), 1.0, 16.0 - table, None, None, None,
            table_seconds=table, course=course,
        )  # fmt: skip

    runs = [run("rl", 0, 12.0, 8.0), run("rl", 1, 9.0, 8.0), run("random", 0, 1.0, 0.0)]
    rl, random = StrategyComparison.of([*runs, run("random", 1, 1.0, 0.0)]).over_seconds()
    assert rl["seconds"] == random["seconds"] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert rl["scores"] == pytest.approx([None] * 5 + [-0.3])
    assert random["scores"] == pytest.approx([None, -0.4, -0.4, -0.4, -0.4, -0.3])

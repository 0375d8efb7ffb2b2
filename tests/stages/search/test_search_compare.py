"""The comparison is fair, and claims nothing that the seeds do not show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from search_nets import setup

from stages.search.compare import (
    Comparison,
    Correlation,
    Difference,
    Run,
    compare,
    correlation,
    interval,
)
from stages.search.engine import Search, ranked
from stages.search.executor import InProcess


def test_every_searching_strategy_gets_the_same_evaluations_and_keeps_the_budget() -> None:
    ready = setup(trials=12, images=60)
    found = compare(
        ready, ["rl", "random", "uniform"], [0, 1], recover=lambda counts, seed: 0.5 + seed / 10
    )
    assert [(run.strategy, run.evaluations, run.copied) for run in found.runs] == [
        ("rl", 12, False), ("rl", 12, False), ("random", 12, False), ("random", 12, False),
        ("uniform", 1, False), ("uniform", 1, True),
    ]  # fmt: skip
    assert all(run.cost <= ready.projector.limit for run in found.runs)
    rows = {row["strategy"]: row for row in found.table()}
    assert rows["rl"]["score"] >= rows["uniform"]["score"]
    assert (rows["uniform"]["seeds"], rows["uniform"]["score_sd"]) == (1, None)
    assert rows["random"]["recovered"] == pytest.approx(0.55)
    assert {(d.strategy, d.measure) for d in found.differences} == {
        (name, measure) for name in ("random", "uniform") for measure in ("score", "recovered")
    }
    assert found.to_dict()["runs"][0]["strategy"] == "rl"


def test_known_runs_are_not_repeated() -> None:
    ready = setup(trials=4, images=20)
    known = {("random", 0): Run("random", 0, 4, 4, -0.1, 0.9, (8,), 1.0, 0.0)}
    seen: list[Run] = []
    compare(
        ready,
        ["random", "uniform"],
        [0],
        known=known,
        on_run=lambda done, total, run: seen.append(run),
    )
    assert seen[0] is known["random", 0]
    assert seen[1].strategy == "uniform"


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


def test_recovery_is_for_the_first_seeds_and_once_a_candidate() -> None:
    ready, asked = setup(trials=4, images=20), []

    def recover(counts: np.ndarray, seed: int) -> float:
        asked.append((tuple(counts.tolist()), seed))
        return 0.5 + seed / 10

    saved: dict[tuple[str, int], Run] = {}
    keep = lambda done, total, run: saved.__setitem__((run.strategy, run.seed), run)  # noqa: E731
    names = ["uniform", "random"]
    found = compare(ready, names, [0, 1, 2], recover=recover, recover_seeds=[0, 1], on_run=keep)
    assert len(asked) == len(set(asked)) <= 4
    assert [run.recovered for run in found.runs] == pytest.approx([0.5, 0.6, None, 0.5, 0.6, None])
    assert {(d.measure, d.seeds) for d in found.differences} == {("score", 3), ("recovered", 2)}
    again = compare(ready, names, [0, 1, 2], recover=recover, recover_seeds=[0, 1], known=saved)
    assert again.runs == found.runs
    assert len(asked) <= 4


def test_two_strategies_without_chance_show_nothing_by_repetition() -> None:
    found = compare(setup(trials=4, images=20), ["uniform", "global-taylor"], [0, 1, 2])
    assert [(d.seeds, d.verdict) for d in found.differences] == [(1, "not shown")]


def test_the_best_is_judged_after_it_was_brought_within_a_measured_budget() -> None:
    ready = setup(trials=4, images=20)
    floors = ready.space.floors
    found = compare(ready, ["random"], [0], fit=lambda counts: (floors, 0.25))
    assert (found.runs[0].counts, found.runs[0].measured) == (tuple(floors.tolist()), 0.25)
    assert found.runs[0].score == ready.final_evaluator()(floors).score


def test_a_leader_above_the_measured_budget_is_not_preferred_for_scoring_better() -> None:
    ready = setup(trials=12, images=60, finalists=3)
    whole, floors = ready.space.sizes, ready.space.floors
    answers = iter(
        [(whole, ready.share + 0.1), (floors, ready.share - 0.1), (whole, ready.share + 0.1)]
    )
    found = compare(ready, ["random"], [0], fit=lambda counts: next(answers))
    assert found.runs[0].counts == tuple(floors.tolist())


def test_of_the_leaders_the_judge_prefers_the_best() -> None:
    ready = setup(trials=12, images=60, finalists=3)
    search = Search(InProcess(ready.evaluator), removed=ready.removed)
    leaders = ranked(search.run("random", ready.strategy("random", trials=12, seed=0), 12))[:3]
    judge = ready.final_evaluator()
    scores = {trial.key: judge(trial.proposal.counts).score for trial in leaders}
    found = compare(ready, ["random"], [0]).runs[0]
    assert (found.score, found.counts) == max((score, key) for key, score in scores.items())
    assert len(scores) == 3


def test_rank_correlation_ignores_scale_and_shares_ties() -> None:
    def value(pairs: list[tuple[float, float]]) -> float:
        runs = [
            Run("s", i, 1, 1, score, 0.0, (i,), 1.0, 0.0, None, after)
            for i, (score, after) in enumerate(pairs)
        ]
        found = correlation(runs)
        assert found is not None
        assert found.candidates == len(pairs)
        return found.value

    assert value([(1, 0.1), (10, 0.2), (100, 0.9)]) == pytest.approx(1.0)
    assert value([(1, 0.9), (10, 0.2), (100, 0.1)]) == pytest.approx(-1.0)
    tied = [(1, 1.0), (1, 2.0), (2, 3.0), (3, 3.0)]
    assert value(tied) == pytest.approx(np.corrcoef([0.5, 0.5, 2, 3], [0, 1, 2.5, 2.5])[0, 1])
    assert isinstance(Comparison((), (), None).table(), list)


def test_rank_correlation_counts_a_candidate_once_and_needs_spread() -> None:
    def run(key: int, score: float, recovered: float) -> Run:
        return Run("s", 0, 1, 1, score, 0.0, (key,), 1.0, 0.0, None, recovered)

    twice = [run(1, 1.0, 0.2), run(1, 1.0, 0.4), run(2, 2.0, 0.5), run(3, 3.0, 0.6)]
    assert correlation(twice).candidates == 3  # type: ignore[union-attr]
    assert correlation([run(i, float(i), 0.5) for i in range(4)]) is None
    assert correlation(twice[:2]) is None


def test_permutations_tell_a_real_correlation_from_chance() -> None:
    """scipy.stats.spearmanr on these: 1.0, and 0.0545 with p = 0.88."""

    def found(recovered: list[float]) -> Correlation:
        runs = [
            Run("s", 0, 1, 1, i, 0.0, (i,), 1.0, 0.0, None, value)
            for i, value in enumerate(recovered)
        ]
        result = correlation(runs)
        assert result is not None
        return result

    assert found([float(i) for i in range(10)]).p < 0.01
    chance = found([3.0, 7.0, 1.0, 9.0, 0.0, 5.0, 8.0, 2.0, 6.0, 4.0])
    assert chance.value == pytest.approx(0.0545, abs=1e-4)
    assert chance.p == pytest.approx(0.88, abs=0.03)

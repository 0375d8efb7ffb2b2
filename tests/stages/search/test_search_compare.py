"""Strategies are compared fairly."""

from __future__ import annotations

import numpy as np
import pytest
from search_nets import problem

from stages.search.compare import compare_strategies
from stages.search.engine import Search
from stages.search.evaluation import InProcess, Trial, ranked
from stages.search.results import StrategyRun
from stages.search.space.ranking import Removal


def test_every_searching_strategy_gets_the_same_evaluations_and_keeps_the_budget() -> None:
    ready = problem(trials=12, images=60)
    found = compare_strategies(
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


def test_a_corrected_limit_holds_for_all_strategies() -> None:
    ready = problem(trials=4, images=20)
    smaller = ready.within(0.4)
    assert smaller.projector.limit < ready.projector.limit
    found = compare_strategies(
        ready, ["rl", "random", "uniform"], [0], correct=lambda table: smaller
    )
    assert len(found.runs) == 3
    assert all(run.cost <= smaller.projector.limit for run in found.runs)


def test_known_runs_are_not_repeated() -> None:
    ready = problem(trials=4, images=20)
    known = {("random", 0): StrategyRun("random", 0, 4, 4, -0.1, 0.9, (8,), 1.0, 0.0)}
    seen: list[StrategyRun] = []
    compare_strategies(
        ready,
        ["random", "uniform"],
        [0],
        known=known,
        on_run=lambda done, total, run: seen.append(run),
    )
    assert seen[0] is known["random", 0]
    assert seen[1].strategy == "uniform"


def test_recovery_is_for_the_first_seeds_and_once_a_candidate() -> None:
    ready, asked = problem(trials=4, images=20), []

    def recover(counts: np.ndarray, seed: int) -> float:
        asked.append((tuple(counts.tolist()), seed))
        return 0.5 + seed / 10

    saved: dict[tuple[str, int], StrategyRun] = {}
    keep = lambda done, total, run: saved.__setitem__((run.strategy, run.seed), run)  # noqa: E731
    names = ["uniform", "random"]
    found = compare_strategies(
        ready, names, [0, 1, 2], recover=recover, recover_seeds=[0, 1], on_run=keep
    )
    assert len(asked) == len(set(asked)) <= 4
    assert [run.recovered for run in found.runs] == pytest.approx([0.5, 0.6, None, 0.5, 0.6, None])
    assert {(d.measure, d.seeds) for d in found.differences} == {("score", 3), ("recovered", 2)}
    again = compare_strategies(
        ready, names, [0, 1, 2], recover=recover, recover_seeds=[0, 1], known=saved
    )
    assert again.runs == found.runs
    assert len(asked) <= 4


def test_two_strategies_without_chance_show_nothing_by_repetition() -> None:
    found = compare_strategies(
        problem(trials=4, images=20), ["uniform", "global-taylor"], [0, 1, 2]
    )
    assert [(d.seeds, d.verdict) for d in found.differences] == [(1, "not shown")]


def test_the_best_is_scored_after_it_was_brought_within_a_measured_budget() -> None:
    ready = problem(trials=4, images=20)
    floors = ready.space.floors
    found = compare_strategies(ready, ["random"], [0], fit=lambda counts, table: (floors, 0.25))
    assert (found.runs[0].counts, found.runs[0].measured) == (tuple(floors.tolist()), 0.25)
    assert found.runs[0].score == ready.final_evaluator()(floors).score


def test_a_leader_above_the_measured_budget_is_not_preferred_for_scoring_better() -> None:
    ready = problem(trials=12, images=60, finalists=3)
    whole, floors = ready.space.sizes, ready.space.floors
    answers = iter(
        [
            (whole, ready.budget.share + 0.1),
            (floors, ready.budget.share - 0.1),
            (whole, ready.budget.share + 0.1),
        ]
    )
    found = compare_strategies(ready, ["random"], [0], fit=lambda counts, table: next(answers))
    assert found.runs[0].counts == tuple(floors.tolist())


def test_of_the_leaders_the_final_evaluation_prefers_the_best() -> None:
    ready = problem(trials=12, images=60, finalists=3)
    search = Search(InProcess(ready.evaluator), removed=Removal(ready.importance))
    leaders = ranked(search.run("random", ready.strategy("random", trials=12, seed=0), 12))[:3]
    final = ready.final_evaluator()
    scores = {trial.key: final(trial.candidate.counts).score for trial in leaders}
    found = compare_strategies(ready, ["random"], [0]).runs[0]
    assert (found.score, found.counts) == max((score, key) for key, score in scores.items())
    assert len(scores) == 3


def test_the_table_is_paid_for_by_those_that_start_from_it() -> None:
    ready = problem(trials=8, images=60)
    entries: list[Trial] = []
    found = compare_strategies(
        ready,
        ["rl", "table", "random", "uniform"],
        [0],
        on_entry=lambda entry, _: entries.append(entry),
    )
    seconds = sum(entry.outcome.seconds for entry in entries)
    paid = {run.strategy: run.table_seconds for run in found.runs}
    assert seconds > 0
    assert paid == {"rl": seconds, "table": seconds, "random": 0.0, "uniform": 0.0}
    for run in found.runs:
        first = run.course[0]
        assert first[1] > run.table_seconds
        scores = [score for _, _, score in run.course]
        assert scores == sorted(set(scores))
        assert run.course[-1][1] <= run.table_seconds + run.seconds + 1e-9


def test_without_a_strategy_that_wants_it_there_is_no_table() -> None:
    entries: list[Trial] = []
    compare_strategies(
        problem(trials=2, images=20),
        ["random"],
        [0],
        on_entry=lambda entry, _: entries.append(entry),
    )
    assert entries == []

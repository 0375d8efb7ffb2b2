"""The loop asks, scores, tells and remembers."""

from __future__ import annotations

import numpy as np
import pytest
from search_tasks import sensitive_score, task

from stages.search.engine import Search
from stages.search.evaluation import InProcess, Outcome, Trial, finalists, ranked
from stages.search.space import Candidate
from stages.search.strategies import STRATEGIES

SIZES = [32, 96, 144, 64, 192]


def test_repeated_candidates_are_answered_from_memory() -> None:
    given = task([32, 32], 0.75, align=16, trials=24)
    calls = 0

    def evaluate(counts: np.ndarray, thresholds: tuple[float, ...]) -> Outcome:
        nonlocal calls
        calls += 1
        return Outcome(float(counts[0]), (float(counts[0]),), 0.5, 10, False, 0.0)

    done = Search(InProcess(evaluate)).run("rl", STRATEGIES["rl"](given), 24)
    assert len(done) == 24
    assert calls == len({trial.key for trial in done}) < 5
    assert sum(trial.cached for trial in done) == 24 - calls


def test_most_candidates_are_cut_short_and_the_best_is_not() -> None:
    given = task(SIZES, 0.5, trials=80)
    score, asked = sensitive_score(given.space), []

    def evaluate(counts: np.ndarray, thresholds: tuple[float, ...]) -> Outcome:
        asked.append(thresholds)
        value = score(counts)
        stopped = [place for place, least in enumerate(thresholds) if value < least]
        seen = stopped[0] + 1 if stopped else 2
        return Outcome(value, (value,) * seen, 0.5, 10, bool(stopped), 0.0)

    done = Search(InProcess(evaluate)).run("random", STRATEGIES["random"](given), 80)
    assert asked[:8] == [(-np.inf, -np.inf)] * 8
    first = [trial.outcome.rungs[0] for trial in done[:8]]
    assert asked[8] == pytest.approx((np.quantile(first, 0.75),) * 2)
    stopped = [trial.outcome.stopped for trial in done]
    assert 45 < sum(stopped) < 75
    assert ranked(done)[0].outcome.score == max(trial.outcome.score for trial in done)


def test_the_warm_start_is_a_finalist_whatever_it_scored() -> None:
    def trial(kept: int, score: float, origin: str, stopped: bool = False) -> Trial:
        candidate = Candidate(np.array([kept]), np.zeros(1), origin)
        return Trial("rl", 0, candidate, Outcome(score, (), 0.5, 10, stopped, 0.0))

    trials = [
        trial(1, -0.9, "warm start"),
        *(trial(n, -0.1 * n, "policy") for n in (4, 2, 3)),
        trial(5, 0.0, "x", True),
    ]
    assert [t.key[0] for t in finalists(trials, 2)] == [2, 3, 1]
    assert [t.key[0] for t in finalists(trials, 9)] == [2, 3, 4, 1]
    assert [t.key[0] for t in finalists(trials, 1)] == [2]

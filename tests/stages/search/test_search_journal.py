"""Killed anywhere, a search continues to the plan it would have had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from search_problems import problem, sensitive_score

from pipeline.errors import ArtifactError
from stages.search.engine import Search, finalists, ranked
from stages.search.evaluate import Outcome
from stages.search.executor import InProcess
from stages.search.journal import Journal
from stages.search.strategies import STRATEGIES, Proposal
from stages.search.trial import Trial

HEADER = {"journal": 1, "of": "x"}
SIZES = [32, 96, 144, 64, 192]


class Killed(Exception):
    """Stands for kill -9 between two instructions."""


def run(
    path: Path, strategy: str = "rl", *, kill_after: int | None = None, trials: int = 40
) -> tuple[list[Trial], int]:
    """A journalled search on a made-up score; returns trials and the number really evaluated."""
    task = problem(SIZES, 0.5, seed=1, trials=trials)
    score, calls = sensitive_score(task.space), 0

    def evaluate(counts: np.ndarray, bars: tuple[float, ...]) -> Outcome:
        nonlocal calls
        calls += 1
        value = score(counts)
        glance = 1.2 * value
        if glance < bars[0]:
            return Outcome(glance, (glance,), 0.5, 1, True, 0.0)
        return Outcome(value, (glance, value), 0.5, 10, False, 0.0)

    def record(trial: Trial, replayed: bool) -> None:
        nonlocal written
        if not replayed:
            journal.append(trial, {"macs": 1})
            written += 1
            if kill_after is not None and written == kill_after:
                raise Killed

    written, journal = 0, Journal.open(path, HEADER)
    search = Search(InProcess(evaluate), journal.trials, record)
    done = search.run(strategy, STRATEGIES[strategy](task), trials)
    assert search.mismatched == 0
    return done, calls


def plans(trials: list[Trial]) -> list[list[int]]:
    return [trial.proposal.counts.tolist() for trial in trials]


@pytest.mark.parametrize("strategy", ["rl", "evolution", "random", "rlpruner"])
@pytest.mark.parametrize("kills", [(1,), (9, 3), (8, 8, 8), (39,)])
def test_killed_and_continued_gives_the_same_trials_and_best(
    tmp_path: Path, strategy: str, kills: tuple[int, ...]
) -> None:
    whole, _ = run(tmp_path / "whole.jsonl", strategy)
    for kill in kills:
        with pytest.raises(Killed):
            run(tmp_path / "killed.jsonl", strategy, kill_after=kill)
    resumed, calls = run(tmp_path / "killed.jsonl", strategy)
    assert plans(resumed) == plans(whole)
    assert ranked(resumed)[0].key == ranked(whole)[0].key
    assert calls <= 40 - sum(kills)


def test_replaying_a_finished_search_evaluates_nothing(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "t.jsonl")
    again, calls = run(tmp_path / "t.jsonl")
    assert calls == 0
    assert plans(again) == plans(whole)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_costs_one_trial(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "t.jsonl"
    whole, _ = run(path)
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal.open(path, HEADER)
    assert journal.torn == 1
    assert len(journal.trials) == 39
    assert path.read_bytes().endswith(b"\n")
    resumed, calls = run(path)
    assert calls <= 1
    assert plans(resumed) == plans(whole)


def test_a_journal_of_another_search_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    run(path)
    journal = Journal.open(path, {"journal": 1, "of": "y"})
    assert journal.foreign
    assert journal.trials == {}
    assert path.read_text().count("\n") == 1


def test_a_journal_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "t.jsonl").symlink_to(tmp_path / "real")
    with pytest.raises(ArtifactError, match="not a regular file"):
        Journal.open(tmp_path / "t.jsonl", HEADER)


def test_repeated_candidates_are_answered_from_memory(tmp_path: Path) -> None:
    task = problem([32, 32], 0.75, align=16, trials=24)
    calls = 0

    def evaluate(counts: np.ndarray, bars: tuple[float, ...]) -> Outcome:
        nonlocal calls
        calls += 1
        return Outcome(float(counts[0]), (float(counts[0]),), 0.5, 10, False, 0.0)

    done = Search(InProcess(evaluate)).run("rl", STRATEGIES["rl"](task), 24)
    assert len(done) == 24
    assert calls == len({trial.key for trial in done}) < 5
    assert sum(trial.cached for trial in done) == 24 - calls


def test_most_candidates_are_cut_short_and_the_best_is_not() -> None:
    task = problem(SIZES, 0.5, trials=80)
    score, asked = sensitive_score(task.space), []

    def evaluate(counts: np.ndarray, bars: tuple[float, ...]) -> Outcome:
        asked.append(bars)
        value = score(counts)
        stopped = [place for place, bar in enumerate(bars) if value < bar]
        seen = stopped[0] + 1 if stopped else 2
        return Outcome(value, (value,) * seen, 0.5, 10, bool(stopped), 0.0)

    done = Search(InProcess(evaluate)).run("random", STRATEGIES["random"](task), 80)
    assert asked[:8] == [(-np.inf, -np.inf)] * 8
    first = [trial.outcome.rungs[0] for trial in done[:8]]
    assert asked[8] == pytest.approx((np.quantile(first, 0.75),) * 2)
    stopped = [trial.outcome.stopped for trial in done]
    assert 45 < sum(stopped) < 75
    assert ranked(done)[0].outcome.score == max(trial.outcome.score for trial in done)


def test_the_warm_start_is_a_finalist_whatever_it_scored() -> None:
    def trial(kept: int, score: float, origin: str, stopped: bool = False) -> Trial:
        proposal = Proposal(np.array([kept]), np.zeros(1), origin)
        return Trial("rl", 0, proposal, Outcome(score, (), 0.5, 10, stopped, 0.0))

    trials = [
        trial(1, -0.9, "warm start"),
        *(trial(n, -0.1 * n, "policy") for n in (4, 2, 3)),
        trial(5, 0.0, "x", True),
    ]
    assert [t.key[0] for t in finalists(trials, 2)] == [2, 3, 1]
    assert [t.key[0] for t in finalists(trials, 9)] == [2, 3, 4, 1]
    assert [t.key[0] for t in finalists(trials, 1)] == [2]

"""Killed anywhere, a search continues to the plan it would have had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from search_tasks import sensitive_score, task

from pipeline.errors import ArtifactError
from stages.search.engine import Search
from stages.search.evaluation import InProcess, Outcome, Trial, ranked
from stages.search.latency import Measurement
from stages.search.results import Journal
from stages.search.strategies import STRATEGIES

HEADER = {"journal": 1, "of": "x"}
SIZES = [32, 96, 144, 64, 192]


class Killed(Exception):
    """Stands for kill -9 between two instructions."""


def run(
    path: Path, strategy: str = "rl", *, kill_after: int | None = None, trials: int = 40
) -> tuple[list[Trial], int]:
    """A journalled search on a made-up score; returns trials and the number really evaluated."""
    given = task(SIZES, 0.5, seed=1, trials=trials)
    score, calls = sensitive_score(given.space), 0

    def evaluate(counts: np.ndarray, thresholds: tuple[float, ...]) -> Outcome:
        nonlocal calls
        calls += 1
        value = score(counts)
        rung = 1.2 * value
        if rung < thresholds[0]:
            return Outcome(rung, (rung,), 0.5, 1, True, 0.0)
        return Outcome(value, (rung, value), 0.5, 10, False, 0.0)

    def record(trial: Trial, replayed: bool) -> None:
        nonlocal written
        if not replayed:
            journal.append(trial, {"macs": 1})
            written += 1
            if kill_after is not None and written == kill_after:
                raise Killed

    written, journal = 0, Journal.open(path, HEADER)
    search = Search(InProcess(evaluate), recorded=journal.trials, on_trial=record)
    done = search.run(strategy, STRATEGIES[strategy](given), trials)
    assert search.mismatched == 0
    return done, calls


def plans(trials: list[Trial]) -> list[list[int]]:
    return [trial.candidate.counts.tolist() for trial in trials]


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


def test_measurements_are_read_back_as_they_were_last_written(tmp_path: Path) -> None:
    path, key = tmp_path / "t.jsonl", (8, 16)
    journal = Journal.open(path, HEADER)
    journal.append_measurement(key, Measurement(0.5, 1e-3, 2e-3))
    journal.append_measurement((16, 16), Measurement(0.9, 1e-3, 2e-3))
    again = Measurement(0.6, 1.2e-3, 2e-3, remeasured=True)
    journal.append_measurement(key, again)
    found = Journal.open(path, HEADER).measured
    assert list(found) == [key, (16, 16)]
    assert found[key] == again


@pytest.mark.parametrize(
    "line",
    [b'{"phase": "rl", "kept": [1' + b"0" * 400 + b"]}", b"[" * 100_000, b'{"phase": 1e999}', b"7"],
    ids=["huge integer", "deep", "infinite", "a number"],
)
def test_a_line_that_nobody_wrote_ends_the_journal(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "t.jsonl"
    run(path)
    good = path.read_bytes()
    path.write_bytes(good + line + b"\n")
    journal = Journal.open(path, HEADER)
    assert (journal.torn, len(journal.trials)) == (1, 40)
    assert path.read_bytes() == good

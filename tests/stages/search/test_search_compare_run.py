"""Strategies compared in a run folder: what is repeated, what is not, and what is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from search_stages import MadeUpTimer, made_run

import stages.search.compare_run as module
import stages.search.latency.calibration as calibration
from pipeline.config.schema import Config
from pipeline.data import Splits
from pipeline.errors import UsageError
from stages.search import Compared, ComparisonRequest, RunComparison
from stages.search.evaluation import Evaluator

REQUEST = ComparisonRequest(["random", "uniform"], seeds=2, recover_seeds=1, distill_images=64)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose network is the trained one."""
    return made_run(tmp_path, module, monkeypatch)


def compared(
    folder: Path, request: ComparisonRequest = REQUEST, **search: Any
) -> tuple[Compared, list[int], list[str]]:
    """What came of it, the train images that recoveries saw, and what was said."""
    seen: list[int] = []
    notes: list[str] = []

    def distill(
        student: torch.nn.Module, original: torch.nn.Module, splits: Splits, seed: int
    ) -> float:
        seen.append(len(splits.train))
        assert sum(p.numel() for p in student.parameters()) < sum(
            p.numel() for p in original.parameters()
        )
        return 0.75

    values = {"trials": 4, "images": 40, "fit_images": 64, "align": 8, **search}
    session = RunComparison(folder, Config(search=values), distill=distill, note=notes.append)
    return session.run(request), seen, notes


def test_the_first_seeds_are_recovered_on_a_draw_of_the_train_images(folder: Path) -> None:
    found, seen, notes = compared(folder)
    assert seen == [64, 64]
    assert found.train_images == 64
    recovered = [run.recovered for run in found.comparison.runs]
    assert recovered == [0.75, None, 0.75, None]
    assert len(notes) == 5, "three searches and two recoveries"
    assert re.search(r"recovered 75\.00% in \d+\.\d s$", notes[-1])  # however busy the machine is


def test_typed_again_it_repeats_nothing_and_goes_on_where_more_is_asked(folder: Path) -> None:
    first, _, _ = compared(folder)
    again, seen, _ = compared(folder)
    assert again.comparison.runs == first.comparison.runs
    assert seen == []
    more = ComparisonRequest(["random", "uniform", "rl"], 2, 1, distill_images=64)
    _, seen, _ = compared(folder, more)
    assert seen == [64]


def test_other_settings_are_another_comparison(folder: Path) -> None:
    compared(folder)
    _, seen, _ = compared(folder, budget={"macs": 0.6})
    assert len(seen) == 2
    assert len(list((folder / ".work").glob("compare-*.json"))) == 2


def test_under_a_latency_budget_the_best_is_fitted_to_measured_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "CandidateTimer", MadeUpTimer)
    request = ComparisonRequest(["random"], seeds=1)
    found, _, notes = compared(folder, request, budget={"latency": 0.6})
    (run,) = found.comparison.runs
    assert run.measured is not None
    assert 0.5 < run.measured <= 0.6
    assert "of the original" in notes[-1]
    budget = found.problem.budget
    assert (budget.metric, budget.share) == ("latency", 0.6)
    timings = calls(monkeypatch)
    again, _, _ = compared(folder, request, budget={"latency": 0.6})
    assert again.comparison.runs == found.comparison.runs
    assert timings == [], "the table is the same, from the same timings"


def test_the_entries_of_the_loss_table_outlive_a_comparison(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ComparisonRequest(["table"], seeds=1)
    first, _, _ = compared(folder, request)
    for path in (folder / ".work").glob("compare-*.json"):  # as if killed before its first run
        path.unlink()
    scored: list[object] = []
    honest = Evaluator.__call__

    def counting(self: Evaluator, counts: Any, thresholds: Any = ()) -> Any:
        scored.append(counts)
        return honest(self, counts, thresholds)

    monkeypatch.setattr(Evaluator, "__call__", counting)
    again, _, _ = compared(folder, request)
    assert len(scored) == 2, "the plan as a trial and as a finalist"
    assert again.comparison.runs[0].counts == first.comparison.runs[0].counts
    assert again.comparison.runs[0].table_seconds == first.comparison.runs[0].table_seconds > 0


def test_a_drop_of_accuracy_is_no_equal_cost(folder: Path) -> None:
    with pytest.raises(UsageError, match="compared at equal cost") as error:
        compared(folder, budget={"accuracy_drop": 1})
    assert "search.budget.macs=0.5" in error.value.hint


def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Candidates that are timed from now on."""
    found: list[object] = []
    honest = MadeUpTimer._time

    def timed(self: MadeUpTimer, counts: Any, seconds: float) -> Any:
        found.append(counts)
        return honest(self, counts, seconds)

    monkeypatch.setattr(MadeUpTimer, "_time", timed)
    return found

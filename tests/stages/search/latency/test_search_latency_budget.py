"""Searches whose budget is latency, on made-up timings."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from search_nets import trained
from search_stages import MadeUpTimer, context

import stages.search.latency.calibration as calibration
from pipeline.channels.counts import Cost
from pipeline.config.search import SearchConfig
from pipeline.errors import Refused, UsageError
from stages.search import Network, SearchProblem
from stages.search.latency import (
    Calibration,
    MeasuredBudget,
    Measurement,
    TimingSetting,
    calibrate,
)
from stages.search.latency.measured_budget import shifted
from stages.search.results import Journal
from stages.search.space import Projector, Ranking, Space
from stages.search.tables import LossTable, resized


@pytest.mark.parametrize("mode", ["predicted", "hybrid", "measured"])
def test_finalists_keep_the_measured_budget(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(calibration, "CandidateTimer", MadeUpTimer)
    ctx = context(tmp_path, budget={"latency": 0.6}, latency=mode)
    stage.run(ctx)
    document = json.loads((ctx.out / "search.json").read_text())
    found = document["latency"]
    assert found["predicted"] <= 0.63
    assert found["base_ms"] == 1.0
    assert document["constants"]["finalist_tries"] == 4
    if mode == "predicted":
        assert found["predicted"] <= 0.6
    else:
        assert 0.5 < found["measured"] <= 0.6
    lines = [json.loads(line) for line in (ctx.out / "trials.jsonl").read_text().splitlines()[1:]]
    assert sum(line["phase"] == "latency" for line in lines) >= 40
    assert all("latency" in line for line in lines if line["phase"] == "rl")


def posed(**budget: float) -> SearchProblem:
    """A problem with a latency budget, timed on the made-up machine."""
    model, graph, splits = trained()
    settings = SearchConfig(budget=budget, images=100, fit_images=64)

    def calibrated(space: Space, ranking: Ranking, macs: Cost) -> Calibration:
        example, _ = splits.search.take(2, seed=0)
        timer = MadeUpTimer(model, graph, ranking, example, TimingSetting())
        return calibrate(timer, space, macs, samples=40, seed=0)

    network = Network(model, graph)
    return SearchProblem.build(network, splits, settings, 0, align=8, calibrate=calibrated)


def test_latency_budget_in_milliseconds_and_unreachable_ones() -> None:
    ready = posed(latency_ms=0.7)
    assert (ready.budget.metric, ready.budget.share) == ("latency", pytest.approx(0.7))
    with pytest.raises(UsageError, match="latency_ms=2 asks for nothing: the original takes 1 ms"):
        posed(latency_ms=2.0)
    with pytest.raises(
        UsageError,
        match=r"search\.budget\.latency=0\.05 cannot be met: the smallest reachable is 0\.",
    ):
        posed(latency=0.05)


@pytest.mark.parametrize("bias", [1.3, 0.8])
def test_the_limit_moves_to_where_the_solution_measures_within_the_budget(bias: float) -> None:
    model, graph, splits = trained()
    ready = posed(latency=0.6)

    class Biased(MadeUpTimer):
        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            honest = super()._time(counts, seconds)
            return Measurement(bias * honest.fraction, honest.seconds, 1e-3)

    example, _ = splits.search.take(2, seed=0)
    timer = Biased(model, graph, ready.ranking, example, TimingSetting())

    def uniform(projector: Projector) -> np.ndarray:
        return projector.logits(np.zeros(len(projector.space)))

    before = timer.measure(uniform(ready.projector)).fraction
    budget = MeasuredBudget(timer, ready.projector, ready.budget.share)
    moved = budget.corrected(uniform)
    after = timer.measure(uniform(moved)).fraction
    assert (before > 0.7) if bias > 1 else (before < 0.5)
    assert 0.54 <= after <= 0.6
    assert moved.cost is ready.projector.cost
    assert moved.limit == pytest.approx(0.6 / bias, rel=0.12)


def test_strategies_search_within_the_moved_limit(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(MadeUpTimer):
        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            honest = super()._time(counts, seconds)
            late = len(self.known) >= 40  # those of the table are timed by then
            return Measurement(1.25 * honest.fraction, honest.seconds, 1e-3) if late else honest

    monkeypatch.setattr(calibration, "CandidateTimer", Slow)
    ctx = context(tmp_path, budget={"latency": 0.6})
    stage.run(ctx)
    document = json.loads((ctx.out / "search.json").read_text())
    assert document["budget"]["asked"] == 0.6
    assert document["budget"]["limit"] < 0.52
    assert 0.5 < document["latency"]["measured"] <= 0.6
    lines = [json.loads(line) for line in (ctx.out / "trials.jsonl").read_text().splitlines()[1:]]
    tried = [line["latency"] for line in lines if line["phase"] in ("rl", "table", "uniform")]
    assert tried
    assert max(tried) <= document["budget"]["limit"] + 1e-9


def test_finalists_are_resized_by_what_the_table_says_of_widths(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(MadeUpTimer):
        """Slower on all that a strategy asks for than on what the limit was moved by."""

        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            honest = super()._time(counts, seconds)
            late = len(self.known) >= 42
            return Measurement(1.2 * honest.fraction, honest.seconds, 1e-3) if late else honest

    resizings = []

    def resizing(table: LossTable, projector: Projector, counts: np.ndarray) -> np.ndarray:
        found = resized(table, projector, counts)
        resizings.append((table(found), table(shifted(projector, counts))))
        return found

    monkeypatch.setattr(calibration, "CandidateTimer", Slow)
    monkeypatch.setattr("stages.search.session.resized", resizing)
    ctx = context(tmp_path, budget={"latency": 0.6})
    stage.run(ctx)
    assert resizings
    assert sum(kept for kept, _ in resizings) <= sum(lost for _, lost in resizings)


def test_a_latency_budget_needs_timings() -> None:
    model, graph, splits = trained()
    settings = SearchConfig(budget={"latency": 0.5}, images=100, fit_images=64)
    with pytest.raises(ValueError, match="calibrate"):
        SearchProblem.build(Network(model, graph), splits, settings, 0, align=8)


def test_no_finalist_in_time_is_refused(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(MadeUpTimer):
        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            honest = super()._time(counts, seconds)
            return honest if len(self.known) < 40 else Measurement(0.9, 0.9e-3, 1e-3)

    monkeypatch.setattr(calibration, "CandidateTimer", Slow)
    with pytest.raises(Refused, match="measured within the latency budget") as caught:
        stage.run(context(tmp_path, budget={"latency": 0.6}))
    assert caught.value.hint.startswith("a larger search.budget.latency, more search.finalists")


def test_a_finalist_that_a_short_timing_flattered_is_timed_for_longer(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[int, ...], float]] = []

    class Flattered(MadeUpTimer):
        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            honest = super()._time(counts, seconds)
            asked.append((tuple(counts.tolist()), seconds))
            short = len(self.known) >= 40 and seconds < 0.5
            return Measurement(0.7 * honest.fraction, honest.seconds, 1e-3) if short else honest

    monkeypatch.setattr(calibration, "CandidateTimer", Flattered)
    ctx = context(tmp_path, budget={"latency": 0.6})
    stage.run(ctx)
    found = json.loads((ctx.out / "search.json").read_text())["latency"]
    assert found["predicted"] <= 0.63, "by the table, which was fitted to honest timings"
    assert 0.5 < found["measured"] <= 0.6
    longer = [key for key, seconds in asked if seconds >= 0.5]
    assert len(longer) == len(set(longer)) > 0, "once a candidate"
    path = ctx.work / "trials.jsonl"
    journal = Journal.open(path, json.loads(path.open().readline()))
    assert {key for key, one in journal.measured.items() if one.remeasured} == set(longer)

"""A later round of a search: share of the budget, floors and scores are those of the original."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from search_nets import trained
from search_stages import MadeUpTimer, context

import stages.search.latency.calibration as calibration
import stages.search.stage as module
from pipeline.config.search import SearchConfig
from pipeline.errors import UsageError
from pipeline.run.artifacts import document
from pipeline.run.rounds import Round
from pipeline.run.stage import StageContext
from pipeline.run.store import read_json
from stages.prune import ChannelPlan, CostModel, prune
from stages.search import Network, SearchProblem
from stages.search.budget import resolve_budget
from stages.search.latency import Calibration, StartLatency
from stages.trace import trace

HALF = ChannelPlan.uniform(trained()[1], cut=0.5, multiple_of=8)


def halved() -> Network:
    """What a first round might have left."""
    model, graph, _ = trained()
    small = prune(model, graph, HALF).eval()
    return Network(small, trace(small, torch.zeros(1, 1, 12, 12)))


def second(budget: dict[str, float], align: int = 8, **changes: Any) -> SearchProblem:
    """The problem of the second of two rounds."""
    model, graph, splits = trained()
    settings = SearchConfig.model_validate(
        {"images": 100, "fit_images": 64, "budget": budget, **changes}
    )
    original = Network(model, graph)
    return SearchProblem.build(
        halved(), splits, settings, 0, align=align, round=Round(2, 2), original=original
    )


def test_share_of_a_later_round_is_of_the_original() -> None:
    whole, left = CostModel(trained()[1]).macs(), CostModel(halved().graph).macs()
    ready = second({"macs": 0.25})
    assert ready.budget.asked == 0.25
    assert ready.projector.limit == pytest.approx(0.25 * whole)
    assert ready.budget.share == pytest.approx(0.25 * whole / left)
    assert ready.original.costs["macs"] == whole
    assert sum(ready.original.sizes.values()) > ready.space.sizes.sum()


def test_round_that_has_nothing_left_to_do_cuts_a_little() -> None:
    assert second({"params": 0.9}).budget.share == 0.99


def test_floors_are_shares_of_the_original() -> None:
    ready = second({"macs": 0.3}, align=1, min_keep=0.4)
    space = ready.space
    for name, size, floor in zip(space.ids, space.sizes, space.floors, strict=True):
        assert floor == min(size, np.ceil(0.4 * ready.original.sizes[name])), name


def test_budget_that_a_later_round_cannot_meet_names_the_round() -> None:
    with pytest.raises(UsageError, match=r"round 2 of 2: search\.budget\.macs") as caught:
        second({"macs": 0.25}, min_keep=0.49, branches=False)
    assert caught.value.hint.startswith("fewer rounds")


def test_the_first_round_refuses_what_only_the_last_one_could_not_meet() -> None:
    model, graph, splits = trained()
    settings = SearchConfig(images=100, fit_images=64, budget={"macs": 0.05}, branches=False)
    network = Network(model, graph)
    with pytest.raises(UsageError, match=r"^search\.budget\.macs=0\.05 cannot be met"):
        SearchProblem.build(network, splits, settings, 0, align=8, round=Round(1, 4))
    first = SearchProblem.build(
        network, splits, SearchConfig(budget={"macs": 0.36}), 0, align=8, round=Round(1, 2)
    )
    assert first.budget.asked == pytest.approx(0.6)


def test_candidates_are_compared_with_the_original() -> None:
    model, _, _ = trained()
    ready = second({"macs": 0.25})
    answers, x = ready.evaluator.answers, ready.evaluator.x
    with torch.inference_mode():
        assert torch.allclose(answers, model(x), atol=1e-5)
        assert not torch.allclose(answers, ready.network.model(x), atol=1e-2)
    final = ready.final_evaluator()
    assert final is not None
    with torch.inference_mode():
        assert torch.allclose(final.answers, model(final.x), atol=1e-5)


def resolved(key: str, value: float, round: Round, start: float) -> tuple[float, float]:
    """(asked, share) of a latency budget; the original takes 2 ms, the start `start` of that."""
    ready = second({"macs": 0.25})
    table = ready.costs["macs"]
    calibration = Calibration(table, 2e-3 * start, StartLatency(start, 2e-3))  # type: ignore[arg-type]
    costs = ready.original.costs
    found = resolve_budget(key, value, round, ready.space, ready.costs, costs, calibration)
    return found.asked, found.share


@pytest.mark.parametrize(("key", "value"), [("latency", 0.36), ("latency_ms", 0.72)])
def test_latency_is_shared_out_as_measured(key: str, value: float) -> None:
    assert resolved(key, value, Round(2, 2), 0.9) == pytest.approx((0.36, 0.4))
    assert resolved(key, value, Round(1, 2), 1.0) == pytest.approx((0.6, 0.6))


def test_milliseconds_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="asks for nothing: the original takes 2 ms"):
        resolved("latency_ms", 3.0, Round(1, 2), 1.0)


def round_two(
    root: Path, monkeypatch: pytest.MonkeyPatch, start: Network, **search: Any
) -> tuple[ModuleType, StageContext]:
    """The stage in the second of two rounds, on files below `root`."""
    model, graph, splits = trained()
    ctx = context(root, **search)
    (root / "first").mkdir()
    document("graph").write(root / "first" / "graph.json", graph.to_dict())
    document("graph").write(root / "in" / "graph.json", start.graph.to_dict())
    first = {f"original/{kind}": (root / "first", {}) for kind in ("base_model", "graph")}
    ctx.inputs = {**ctx.inputs, **first}
    ctx.round = Round(2, 2)
    models = {root / "first": model, root / "in": start.model}
    monkeypatch.setattr(module, "load_model", models.__getitem__)
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits)
    return module, ctx


def test_latency_of_a_later_round_is_told_against_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph, _ = trained()
    monkeypatch.setattr(calibration, "CandidateTimer", MadeUpTimer)
    kept = StartLatency(0.9, 1e-3 / 0.9)
    monkeypatch.setattr(calibration, "time_start", lambda original, start: kept)
    stage, ctx = round_two(tmp_path, monkeypatch, Network(model, graph), budget={"latency": 0.54})
    stage.run(ctx)
    found = json.loads((ctx.out / "search.json").read_text())
    assert found["budget"]["asked"] == pytest.approx(0.54)
    limit = found["budget"]["limit"]
    assert limit == pytest.approx(0.54, rel=0.03), "moved by as much as the table errs"
    assert found["latency"]["base_ms"] == pytest.approx(1 / 0.9)
    assert found["latency"]["round_starts_at"] == 0.9
    assert found["latency"]["budget"] == pytest.approx(0.54)
    assert 0.45 < found["latency"]["measured"] <= 0.54
    realised = found["budget"]["realised"]["latency"]["fraction"]
    assert realised == pytest.approx(found["latency"]["predicted"])
    lines = [json.loads(line) for line in (ctx.out / "trials.jsonl").read_text().splitlines()[1:]]
    assert max(line["latency"] for line in lines if line["phase"] == "rl") <= limit * 1.0001


def test_latency_against_the_original_is_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, ctx = round_two(
        tmp_path,
        monkeypatch,
        halved(),
        budget={"latency": 0.5},
        trials=2,
        latency_samples=10,
        latency="predicted",
    )
    started: list[StartLatency] = []

    def stop(*args: object, start: StartLatency, **settings: object) -> None:
        started.append(start)
        raise InterruptedError

    monkeypatch.setattr(calibration, "calibrate", stop)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            stage.run(ctx)
    kept = read_json(ctx.work / "start_latency.json")
    assert 0.1 < kept["fraction"] < 1.5
    assert started == [StartLatency(kept["fraction"], kept["original_seconds"])] * 2

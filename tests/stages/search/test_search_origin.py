"""A later round of a search: its share of the budget, its floors and its judge are those of the
original network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_nets import setup, trained
from test_search_latency import Recorded
from test_search_stage import context

import stages.search.stage as module
from pipeline.config.schema import SearchConfig
from pipeline.errors import UsageError
from pipeline.run.rounds import Round
from pipeline.run.stage import StageContext
from pipeline.run.store import read_json
from stages.prune import ChannelPlan, CostModel, prune
from stages.search.origin import Origin, begin_round, in_time, judge
from stages.trace import trace

HALF = ChannelPlan.uniform(trained()[1], cut=0.5, multiple_of=8)


def halved() -> tuple[torch.nn.Module, Any]:
    """What a first round might have left, and its graph."""
    model, graph, _ = trained()
    small = prune(model, graph, HALF).eval()
    return small, trace(small, torch.zeros(1, 1, 12, 12))


def second(budget: dict[str, float], **changes: Any) -> tuple[Any, Origin]:
    _, graph, splits = trained()
    settings = SearchConfig.model_validate(
        {"images": 100, "fit_images": 64, "budget": budget, **changes}
    )
    return begin_round(*halved(), splits, settings, 0, original=graph, number=2, rounds=2)


def test_share_of_a_later_round_is_of_the_original() -> None:
    whole, left = CostModel(trained()[1]).macs(), CostModel(halved()[1]).macs()
    ready, origin = second({"macs": 0.25})
    assert origin.asked == 0.25
    assert ready.projector.limit == pytest.approx(0.25 * whole)
    assert ready.share == pytest.approx(0.25 * whole / left)
    assert origin.costs["macs"] == whole
    assert sum(origin.sizes.values()) > ready.space.sizes.sum()
    assert Origin(1, 2, 0.25, {}, {}).share(0.25) == 0.5


def test_round_that_has_nothing_left_to_do_cuts_a_little() -> None:
    assert second({"params": 0.9})[0].share == 0.99


def test_floors_are_shares_of_the_original() -> None:
    _, origin = second({"macs": 0.3}, min_keep=0.4, align=1)
    ready, _ = second({"macs": 0.3}, min_keep=0.4, align=1)
    for name, size, floor in zip(
        ready.space.ids, ready.space.sizes, ready.space.floors, strict=True
    ):
        assert floor == min(size, np.ceil(0.4 * origin.sizes[name])), name


def test_budget_that_a_later_round_cannot_meet_names_the_round() -> None:
    with pytest.raises(UsageError, match=r"round 2 of 2: search\.budget\.macs") as caught:
        second({"macs": 0.25}, min_keep=0.49)
    assert caught.value.hint.startswith("fewer rounds")


def test_judge_compares_with_the_original() -> None:
    model, _, _ = trained()
    ready, _ = second({"macs": 0.25})
    own = ready.evaluator.teacher
    judge(ready.evaluator, model)
    with torch.inference_mode():
        assert torch.allclose(ready.evaluator.teacher, model(ready.evaluator.x), atol=1e-5)
    assert not torch.allclose(ready.evaluator.teacher, own, atol=1e-2)


@pytest.mark.parametrize(
    ("budget", "share"), [({"latency": 0.36}, 0.4), ({"latency_ms": 0.72}, 0.4)]
)
def test_latency_is_shared_out_as_measured(budget: dict[str, float], share: float) -> None:
    ready, origin = in_time(setup(budget=budget), Origin(2, 2, 0.0, {}, {}), 0.9, 2e-3)
    assert (ready.metric, ready.share) == ("latency", pytest.approx(share))
    assert origin.asked == pytest.approx(0.36)
    first, _ = in_time(setup(budget=budget), Origin(1, 2, 0.0, {}, {}), 1.0, 2e-3)
    assert first.share == pytest.approx(0.6)


def test_milliseconds_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="asks for nothing: the base takes 2 ms"):
        in_time(setup(budget={"latency_ms": 3.0}), Origin(1, 2, 0.0, {}, {}), 1.0, 2e-3)


def round_two(
    root: Path, monkeypatch: pytest.MonkeyPatch, small: Any, **search: Any
) -> tuple[Any, StageContext]:
    model, graph, splits = trained()
    ctx = context(root, **search)
    (root / "first").mkdir()
    (root / "first" / "graph.json").write_text(graph.to_json())
    (root / "in" / "graph.json").write_text(small[1].to_json())
    ctx.inputs = {
        **ctx.inputs,
        **{f"original/{kind}": (root / "first", {}) for kind in ("base_model", "graph")},
    }
    monkeypatch.setattr(
        module, "load_model", lambda folder: model if folder == root / "first" else small[0]
    )
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits)
    stage = module.STAGE()
    ctx.round = Round(2, 2)
    return stage, ctx


def test_latency_of_a_later_round_is_told_against_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph, _ = trained()
    monkeypatch.setattr(module, "Stopwatch", Recorded)
    kept = {"latency": 0.9, "base_seconds": 1e-3 / 0.9}
    monkeypatch.setattr(module._Session, "_against_first", lambda self, watch: kept)
    stage, ctx = round_two(tmp_path, monkeypatch, (model, graph), budget={"latency": 0.54})
    stage.run(ctx)
    found = json.loads((ctx.out / "search.json").read_text())
    assert found["budget"]["asked"] == pytest.approx(0.54)
    assert 0.5 < found["budget"]["limit"] <= 0.54 * 1.0001
    assert found["latency"]["base_ms"] == pytest.approx(1 / 0.9)
    assert found["latency"]["budget"] == pytest.approx(0.54)
    assert 0.45 < found["latency"]["measured"] <= 0.54
    assert found["budget"]["realised"]["latency"]["fraction"] == pytest.approx(
        found["latency"]["predicted"]
    )
    lines = [json.loads(line) for line in (ctx.out / "trials.jsonl").read_text().splitlines()[1:]]
    assert max(line["latency"] for line in lines if line["phase"] == "rl") <= 0.54 * 1.0001


def test_latency_against_the_original_is_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = halved()
    stage, ctx = round_two(
        tmp_path,
        monkeypatch,
        small,
        budget={"latency": 0.5},
        trials=2,
        latency_samples=10,
        latency="predicted",
    )
    started: list[float] = []
    monkeypatch.setattr(
        module, "calibrate", lambda setup, watch, told: started.append(setup.share) or 1 / 0
    )
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            stage.run(ctx)
    kept = read_json(ctx.work / "origin.json")
    assert 0.1 < kept["latency"] < 1.5
    assert started == [pytest.approx(min(0.99, 0.5 / kept["latency"]))] * 2

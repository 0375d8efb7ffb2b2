"""A search within a drop of accuracy, and the front that every search leaves."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from search_nets import trained
from search_stages import context

from pipeline.errors import Interrupted, Refused
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from stages.prune import ChannelPlan, CostModel

SMALL = {"strategy": "table", "table": {"images": 40, "widths": 2}}
DROP = {"accuracy_drop": 3, "of": "macs"}


def ready(root: Path, **search: Any) -> StageContext:
    """Reconstruction on few images, and no training that could bring anything back."""
    ctx = context(root, **{**SMALL, **search})
    parts = {"reconstruct": {"images": 64}, "distill": {"epochs": 0}}
    ctx.config = ctx.config.model_validate({**ctx.config.model_dump(), **parts})
    return ctx


def read(ctx: StageContext, kind: str) -> dict[str, Any]:
    return document(kind).read(ctx.out / document(kind).file)


def test_every_search_leaves_a_front_of_predicted_points(stage: ModuleType, tmp_path: Path) -> None:
    ctx = ready(tmp_path)
    stage.run(ctx)
    front = read(ctx, "front")
    points = front["points"]
    assert front["metric"] == "macs"
    assert len(points) > 5
    assert not any(point["measured"] for point in points)
    for key in ("macs", "accuracy", "budget"):
        assert [point[key] for point in points] == sorted(point[key] for point in points)
    assert points[-1]["accuracy"] >= front["original"]["accuracy"]


def test_a_drop_of_accuracy_becomes_the_smallest_measured_budget_within_it(
    stage: ModuleType, tmp_path: Path
) -> None:
    _, graph, _ = trained()
    ctx = ready(tmp_path, budget=DROP)
    result = stage.run(ctx)
    search, front = read(ctx, "search"), read(ctx, "front")
    drop = search["budget"]["accuracy_drop"]
    assert (drop["asked"], drop["allowed"]) == (3, 3)
    measured = {point["budget"]: point for point in front["points"] if point["measured"]}
    within = [
        point["macs"]
        for point in measured.values()
        if 100 * (drop["original"] - point["accuracy"]) <= 3 + 1e-9
    ]
    assert search["budget"]["asked"] == pytest.approx(min(within) / CostModel(graph).macs())
    assert result["macs_fraction"] <= search["budget"]["asked"] * (1 + 1e-9) < 1
    plan = ChannelPlan.from_dict(read(ctx, "plan"))
    assert CostModel(graph).macs(plan.counts(), plan.drop) <= min(within)
    assert len(drop["measured"]) == 6


def test_what_distillation_brings_back_is_allowed_for(stage: ModuleType, tmp_path: Path) -> None:
    ctx = ready(tmp_path, budget=DROP)
    trained_too = {**ctx.config.model_dump(), "distill": {"epochs": 2}}
    ctx.config = ctx.config.model_validate(trained_too)
    stage.run(ctx)
    assert read(ctx, "search")["budget"]["accuracy_drop"]["allowed"] == 6


def test_a_drop_that_nothing_keeps_is_refused_with_one_that_might_do(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stages.search.front.measuring as measuring

    model, _, _ = trained()
    whole = sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(
        measuring, "accuracy", lambda net, images: sum(p.numel() for p in net.parameters()) / whole
    )
    with pytest.raises(Refused, match=r"accuracy_drop=0.01: even \d+% of the macs costs") as error:
        stage.run(ready(tmp_path, budget={**DROP, "accuracy_drop": 0.01}))
    assert "search.budget.accuracy_drop=" in error.value.hint


@pytest.mark.parametrize("measured_before", [1, 4])
def test_interrupted_among_measured_plans_it_ends_with_the_same_bytes(
    stage: ModuleType, tmp_path: Path, measured_before: int
) -> None:
    stage.run(ready(tmp_path / "whole", budget=DROP))
    ctx = ready(tmp_path / "cut", budget=DROP)
    journal = ctx.work / "trials.jsonl"

    def stop() -> int:
        done = journal.exists() and journal.read_text().count('"phase": "front"')
        return 15 if done >= measured_before else 0

    ctx.stop_signal = stop
    with pytest.raises(Interrupted):
        stage.run(ctx)
    left = journal.read_text()
    assert left.count('"phase": "front"') == measured_before
    stage.run(ready(tmp_path / "cut", budget=DROP))
    for name in ("plan.json", "front.json"):
        first, second = ((tmp_path / run / "out" / name).read_bytes() for run in ("whole", "cut"))
        assert first == second
    assert (ctx.out / "trials.jsonl").read_text().startswith(left), "nothing is measured again"
    rows = [json.loads(line) for line in (ctx.out / "trials.jsonl").read_text().splitlines()[1:]]
    assert [row["trial"] for row in rows if row["phase"] == "front"] == list(range(7))

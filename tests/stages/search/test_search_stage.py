"""The stage on real artefacts: what it writes, that the test split stays out of reach, that it
resumes.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from search_nets import trained
from search_stages import context

import stages.search.stage as module
from pipeline.errors import Interrupted, UsageError
from stages.prune import ChannelPlan, CostModel
from stages.search.strategies import CONTROLS


@pytest.mark.parametrize("strategy", ["rl", "global-taylor"])
def test_writes_a_plan_within_budget_and_the_controls_beside_it(
    stage: ModuleType, tmp_path: Path, strategy: str
) -> None:
    _, graph, _ = trained()
    ctx = context(tmp_path, strategy=strategy)
    result = stage.run(ctx)
    text = (ctx.out / "plan.json").read_text()
    plan = ChannelPlan.from_json(text)
    plan.check(graph)
    assert plan.to_dict().items() <= json.loads(text).items()
    cost = CostModel(graph)
    assert cost.macs(plan.counts()) / cost.macs() == pytest.approx(result["macs_fraction"])
    assert 0.4 < result["macs_fraction"] <= 0.5
    assert all(len(units) % 8 == 0 for units in plan.keep.values())
    found = json.loads((ctx.out / "search.json").read_text())
    assert {row["strategy"] for row in found["strategies"]} == {
        *CONTROLS,
        strategy,
    }
    assert found["budget"]["realised"]["macs"]["pruned"] == cost.macs(plan.counts())
    assert found["best"]["score"] <= 0 == found["base"]["score"]
    lines = (ctx.out / "trials.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["groups"] == [group["id"] for group in found["groups"]]
    assert sum(json.loads(line)["phase"] == strategy for line in lines[1:]) == found["trials"]


def test_progress_says_what_a_candidate_costs_of_what_it_may(
    stage: ModuleType, tmp_path: Path
) -> None:
    reports: list[tuple[int, int, dict[str, Any]]] = []
    ctx = context(tmp_path)
    ctx.reporter.progress = lambda done, total, **fields: reports.append((done, total, fields))  # type: ignore[method-assign]
    stage.run(ctx)
    tabulated = [report for report in reports if "what" in report[2]]
    reports = [report for report in reports if "what" not in report[2]]
    assert [done for done, _, _ in tabulated] == list(range(1, len(tabulated) + 1))
    assert all(done <= total for done, total, _ in tabulated)
    assert {fields["what"] for _, _, fields in tabulated} == {"widths measured for the loss table"}
    assert [(done, total) for done, total, _ in reports] == [(n, 16) for n in range(1, 17)]
    for _, _, fields in reports:
        spent, _, may = fields["budget"].removeprefix("macs ").partition(" of ")
        assert 40 < float(spent.rstrip("%")) <= float(may.rstrip("%")) == 50
    assert set(reports[-1][2]) == {"best", "accuracy", "budget", "cache_hits", "eta_s"}
    assert reports[-1][2]["eta_s"] == 0


def test_the_plan_is_at_least_as_good_as_the_controls(stage: ModuleType, tmp_path: Path) -> None:
    result = stage.run(context(tmp_path))
    found = json.loads((tmp_path / "out" / "search.json").read_text())
    rows = {row["strategy"]: row["score"] for row in found["strategies"]}
    assert rows["rl"] >= max(rows[name] for name in CONTROLS)
    assert result["trials"] == 16


@pytest.mark.parametrize(("polls_before", "phase"), [(7, "table entries"), (40, "rl")])
def test_interrupted_then_continued_gives_the_same_plan(
    stage: ModuleType, tmp_path: Path, polls_before: int, phase: str
) -> None:
    """Within the loss table, and within the trials of the strategy."""
    stage.run(context(tmp_path / "whole"))
    polls = iter([0] * polls_before + [15] * 1000)
    ctx = context(tmp_path / "cut")
    ctx.stop_signal = lambda: next(polls)
    with pytest.raises(Interrupted):
        stage.run(ctx)
    left = (ctx.work / "trials.jsonl").read_text().splitlines()
    assert json.loads(left[-1])["phase"] == phase
    assert not list(ctx.out.iterdir())
    stage.run(context(tmp_path / "cut"))
    journals = [
        (root / "out" / "trials.jsonl").read_text().splitlines()
        for root in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert journals[1][: len(left)] == left, "nothing is measured again"
    assert len(journals[0]) == len(journals[1])
    plans = [(tmp_path / root / "out" / "plan.json").read_bytes() for root in ("whole", "cut")]
    assert plans[0] == plans[1]
    tables = [
        json.loads((tmp_path / root / "out" / "search.json").read_text())["table"]
        for root in ("whole", "cut")
    ]
    assert tables[0] == tables[1]


def test_other_settings_do_not_continue_the_old_journal(stage: ModuleType, tmp_path: Path) -> None:
    stage.run(context(tmp_path))
    notes: list[str] = []
    ctx = context(tmp_path, budget={"params": 0.6})
    monkey = ctx.reporter
    monkey.note = notes.append  # type: ignore[method-assign]
    result = stage.run(ctx)
    assert any("set aside" in note for note in notes)
    assert result["params_fraction"] <= 0.6


def test_unreachable_budget_is_a_usage_error(stage: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="smallest reachable"):
        stage.run(context(tmp_path, budget={"macs": 0.01}))


def test_no_way_leads_to_the_test_split() -> None:
    for path in Path(module.__file__).parent.rglob("*.py"):
        assert "load_test" not in path.read_text(), path


def test_same_seed_same_plan_other_seed_other_trials(stage: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(123)
    stage.run(context(tmp_path / "a"))
    torch.manual_seed(321)
    stage.run(context(tmp_path / "b"))
    stage.run(context(tmp_path / "c", seed=1))
    texts = {name: (tmp_path / name / "out" / "plan.json").read_bytes() for name in "ab"}
    assert texts["a"] == texts["b"]
    kept = [
        [
            json.loads(line)["kept"]
            for line in (tmp_path / name / "out" / "trials.jsonl").read_text().splitlines()[1:]
        ]
        for name in "ac"
    ]
    assert kept[0] != kept[1]


def test_what_is_no_setting_and_shapes_the_result_is_written_down(
    stage: ModuleType, tmp_path: Path
) -> None:
    stage.run(context(tmp_path))
    found = json.loads((tmp_path / "out" / "search.json").read_text())["constants"]
    assert {"score_model_ridge", "critic_lengths"} <= set(found)


def test_the_settings_of_the_policy_change_what_it_proposes(
    stage: ModuleType, tmp_path: Path
) -> None:
    kept = []
    for name, rl in (("a", {}), ("b", {"start_spread": 1.0})):
        stage.run(context(tmp_path / name, rl=rl))
        lines = (tmp_path / name / "out" / "trials.jsonl").read_text().splitlines()[1:]
        kept.append([json.loads(line)["kept"] for line in lines])
    assert kept[0] != kept[1]

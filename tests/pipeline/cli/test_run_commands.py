"""A run by its commands, start to end: run, plan, stage, status, check, report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_run
import pytest
from every_command import COMMANDS
from failures import ENVELOPE

pytestmark = pytest.mark.usefixtures("fakes")


def test_run_gives_its_summary_with_paths_that_exist(rlp: fake_run.Rlp, here: Path) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    result = rlp("pipeline", "run", "fake.yaml", "--json")
    assert result.code == 0
    document = result.json()
    assert document["ok"] is True
    assert document["run"] == "artifacts/fake"
    assert document["speedup"]["verdict"] == "faster"
    assert Path(document["report"]).is_file()
    assert Path(document["onnx"]).is_file()
    assert [row["action"] for row in document["stages"]] == ["run"] * 8
    again = rlp("pipeline", "run", "fake.yaml", "--json").json()
    assert [row["action"] for row in again["stages"]] == ["reuse"] * 8
    assert {k: v for k, v in again.items() if k != "stages"} == {
        k: v for k, v in document.items() if k != "stages"
    }


def test_run_that_stops_early_has_the_same_keys(rlp: fake_run.Rlp, here: Path) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    document = rlp("pipeline", "run", "fake.yaml", "--until", "trace", "--json").json()
    assert document.keys() == ENVELOPE | set(COMMANDS["pipeline", "run"].callback.json_keys)
    assert document["onnx"] is None


def test_plan_of_a_new_run_writes_nothing(rlp: fake_run.Rlp, here: Path) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    result = rlp("pipeline", "plan", "fake.yaml", "--json")
    assert [row["action"] for row in result.json()["stages"]] == ["run"] * 8
    assert [path.name for path in here.iterdir()] == ["fake.yaml"]


def test_stage_runs_alone_on_a_run_and_on_a_config(
    rlp: fake_run.Rlp, whole: Path, here: Path
) -> None:
    run = Path(shutil.copytree(whole, here / "run"))
    result = rlp("stage", "search", "--run", run, "--set", "search.trials=7", "--json")
    assert (result.code, result.json()["action"]) == (0, "run")
    assert Path(result.json()["outputs"]["plan.json"]).is_file()
    assert rlp("check", run).code == 3, "prune is stale now"
    shutil.copy(whole.parent / "fake.yaml", here)
    assert (
        rlp("stage", "pretrain", "--config", "fake.yaml", "--json").json()["run"]
        == "artifacts/fake"
    )
    assert rlp("stage", "trace", "--json").code == 2
    assert rlp("stage", "trace", "--run", run, "--config", "fake.yaml").code == 2
    assert rlp("stage", "frob", "--run", run).code == 2


def test_stage_before_its_input_names_the_stage_that_comes_first(
    rlp: fake_run.Rlp, here: Path
) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    result = rlp("stage", "prune", "--config", "fake.yaml")
    assert result.code == 3
    assert "rlp stage pretrain --run artifacts/fake" in result.lines("hint")[0]


def test_status_and_check_tell_fresh_from_stale_and_missing(
    rlp: fake_run.Rlp, whole: Path, here: Path
) -> None:
    run = Path(shutil.copytree(whole, here / "run"))
    rows = rlp("pipeline", "status", run, "--json").json()["stages"]
    assert {row["state"] for row in rows} == {"fresh"}
    shutil.rmtree(run / "benchmark")
    rows = rlp("pipeline", "status", run, "--json").json()["stages"]
    assert {row["stage"]: row["state"] for row in rows}["benchmark"] == "missing"
    result = rlp("check", run, "--json")
    assert result.code == 3
    assert result.json()["passed"] is False
    assert result.json()["error"]["message"].startswith("benchmark: ")


def test_the_table_at_the_end_shows_int8_alone_and_the_remarks(
    rlp: fake_run.Rlp, here: Path
) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    said = rlp("pipeline", "run", "fake.yaml")
    table = said.out + said.err
    assert "original, INT8 alone" in table
    assert "pruned (delivered)" in table
    assert "INT8 is [/a] remark" in table


def test_report_only_reads_and_says_what_is_stale(
    rlp: fake_run.Rlp, whole: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock")))
    before = _content(copy)
    fresh = rlp("report", copy)
    assert (fresh.code, fresh.lines("warning")) == (0, [])
    assert str(copy / "report" / "report.html") in fresh.out
    assert _content(copy) == before
    assert rlp("stage", "search", "--run", copy, "--set", "search.trials=3").code == 0
    stale = rlp("report", copy)
    assert stale.code == 0
    assert stale.out == fresh.out
    (said,) = stale.lines("warning")
    assert " are from before a change (" in said
    assert f"--run-dir {copy}" in said


def _content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_config_of_a_run_is_shown(rlp: fake_run.Rlp, whole: Path) -> None:
    shown = rlp("config", "show", whole, "--json").json()["settings"]
    assert shown == json.loads((whole / "run.json").read_bytes())["config"]
    assert rlp("config", "show", whole, "--set", "seed=1").code == 2


def test_quiet_says_nothing_when_all_is_well(rlp: fake_run.Rlp, whole: Path) -> None:
    for command in (("check", whole), ("pipeline", "status", whole), ("report", whole)):
        result = rlp(*command, "--quiet")
        assert (result.code, result.out, result.err) == (0, "", "")


def test_json_keeps_progress_off_stdout(rlp: fake_run.Rlp, here: Path) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    result = rlp("pipeline", "run", "fake.yaml", "--json")
    assert "[1/8] pretrain" in result.err
    assert "[1/8]" not in result.out

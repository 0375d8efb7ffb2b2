"""The contract of the command line: exit codes, one `error:` and one `hint:` line, one JSON
document.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_run
import pytest
import typer
from failures import ENVELOPE, assert_failure

from pipeline.cli import running
from pipeline.cli.app import app
from pipeline.config.schema import Config
from pipeline.paired import paired_change

pytestmark = pytest.mark.usefixtures("fakes")


def _commands(
    group: Any = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path, such as `("pipeline", "run")`."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands())
NEED_ARGUMENTS = [
    path for path, command in COMMANDS.items() if any(p.required for p in command.params)
]
STATUS = {
    ("pipeline", "run"): "no-such.yaml",
    ("pipeline", "plan"): "no-such.yaml",
    ("pipeline", "status"): "no-such-run",
    ("stage",): "trace --run no-such-run",
    ("check",): "no-such-run",
    ("predict",): "no-such-folder photo.jpg",
    ("bench",): "no-such.onnx other.onnx",
    ("quantize",): "no-such.onnx --calibration no-such-folder",
    ("search", "front"): "no-such.yaml --measured 1",
    ("search", "compare"): "no-such.yaml --strategies rl,random --seeds 1",
    ("report",): "no-such-run",
    ("diff",): "no-such-run other-run",
    ("inspect",): "no-such-file",
    ("config", "show"): "no-such.yaml",
    ("config", "explain"): "no-such",
    ("data", "import"): "no-such-folder",
    ("data", "get"): "no-such-name no-such-folder",
}


def test_commands_are_those_of_the_contract() -> None:
    assert {" ".join(path) for path in COMMANDS} >= {
        "init",
        "pipeline run",
        "pipeline plan",
        "pipeline status",
        "stage",
        "runs",
        "diff",
        "check",
        "predict",
        "bench",
        "quantize",
        "search compare",
        "search front",
        "report",
        "inspect",
        "config show",
        "config schema",
        "config ls",
        "doctor",
        "data ls",
        "data get",
        "data import",
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_of_every_command(rlp: fake_run.Rlp, path: tuple[str, ...]) -> None:
    result = rlp(*path, "--help")
    assert result.code == 0
    assert result.err == ""
    assert "--json" in result.out
    assert "--quiet" in result.out
    assert "--verbose" in result.out


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_unknown_option_is_a_usage_error_with_the_commands_own_keys(
    rlp: fake_run.Rlp, path: tuple[str, ...]
) -> None:
    result = rlp(*path, "--frob", "--json")
    assert_failure(result, 2)
    assert result.json().keys() == ENVELOPE | set(COMMANDS[path].callback.json_keys)
    assert f"rlp {' '.join(path)} --help" in result.lines("hint")[0]


@pytest.mark.parametrize("path", NEED_ARGUMENTS, ids=" ".join)
def test_missing_argument_is_a_usage_error(rlp: fake_run.Rlp, path: tuple[str, ...]) -> None:
    result = rlp(*path, "--json")
    assert_failure(result, 2)
    assert "Missing argument" in result.lines("error")[0]


@pytest.mark.parametrize("path", NEED_ARGUMENTS, ids=" ".join)
def test_what_is_not_there_is_no_bug_and_one_json_document(
    rlp: fake_run.Rlp, here: Path, path: tuple[str, ...]
) -> None:
    result = rlp(*path, *STATUS[path].split(), "--json")
    assert result.code in (2, 3, 4)
    assert_failure(result, result.code)
    assert "no-such" in result.lines("error")[0]
    assert result.json().keys() == ENVELOPE | set(COMMANDS[path].callback.json_keys)
    assert list(here.iterdir()) == [], "a refused command left something"


@pytest.mark.parametrize(
    "arguments",
    [
        "frob",
        "pipeline frob",
        "pipeline",
        "config",
        "--frob",
        "check a b",
        "check a --min-speedup x",
        "config ls extra",
    ],
)
@pytest.mark.parametrize("flag", ["--json", ""])
def test_every_other_usage_error(rlp: fake_run.Rlp, arguments: str, flag: str) -> None:
    result = rlp(*arguments.split(), *flag.split())
    assert result.code == 2
    assert len(result.lines("error")) == len(result.lines("hint")) == 1
    if flag:
        assert result.json()["exit_code"] == 2
    else:
        assert result.out == ""


# --- a run, start to end
# ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        ("", 0),
        ("--max-accuracy-drop 2.0 --min-speedup 2.0 --max-latency-ms 0.5 --max-macs 500", 0),
        ("--max-accuracy-drop 1.9", 1),
        ("--min-accuracy 0.89", 1),
        ("--min-speedup 2.1", 1),
        ("--max-latency-ms 0.4", 1),
        ("--max-macs 499", 1),
        ("--max-params 99", 1),
        ("--max-bytes 399", 1),
        ("--min-agreement 1", 0),
        ("--min-speedup nan", 2),
        ("--min-speedup inf", 2),
        ("--max-accuracy-drop nan", 2),
        ("--max-latency-ms -1", 2),
        ("--max-macs 1.5", 2),
    ],
)
def test_gates(rlp: fake_run.Rlp, whole: Path, gates: str, code: int) -> None:
    result = rlp("check", whole, *gates.split(), "--json")
    assert result.code == code
    assert result.json()["exit_code"] == code
    if code == 1:
        assert result.json()["passed"] is False
        assert "gate missed" in result.lines("error")[0]
        way = "raise" if "accuracy" in gates else "lower"
        assert result.lines("hint")[0].startswith(f"hint: {way} ")


def test_hint_of_a_missed_gate_knows_which_way_the_budget_goes(
    rlp: fake_run.Rlp, here: Path
) -> None:
    run = fake_run.finished(here / "run", ["search.budget={accuracy_drop: 1.0}"])
    slow, wrong = (
        rlp("check", run, *gate).lines("hint")[0]
        for gate in (("--min-speedup", "9"), ("--max-accuracy-drop", "0.1"))
    )
    assert slow == "hint: raise search.budget.accuracy_drop, or loosen the gate"
    assert "raise distill.epochs or lower search.budget.accuracy_drop" in wrong


def test_a_drop_that_too_few_images_measured_is_said_to_be_undecided(
    rlp: fake_run.Rlp, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = running.load_summary

    def paired(run: Path) -> dict[str, Any]:
        summary = load(run)
        change = paired_change(1000, 10, 30)  # two points lost
        return {
            **summary,
            "variants": [{**row, "accuracy_change": change} for row in summary["variants"]],
        }

    monkeypatch.setattr(running, "load_summary", paired)
    result = rlp("check", whole, "--max-accuracy-drop", "2.5", "--json")
    (gate,) = result.json()["gates"]
    assert (result.code, gate["passed"], gate["decided"]) == (0, True, False)
    assert gate["ci95"][0] < 2 < gate["ci95"][1]
    (said,) = result.lines("warning")
    assert "1,000 test images cannot tell a drop of 2 points" in said
    assert re.search(r"from the limit of 2\.5; about \d,\d{3} would", said)
    sure = rlp("check", whole, "--max-accuracy-drop", "4", "--json")
    assert (sure.json()["gates"][0]["decided"], sure.lines("warning")) == (True, [])


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        ("--min-speedup 1.6", 1),
        ("--min-speedup 1.4 --max-bytes 100 --max-accuracy-drop 1.1", 0),
        ("--max-macs 999", 1),
    ],
)
def test_gates_of_a_variant_that_is_not_delivered(
    rlp: fake_run.Rlp, whole: Path, gates: str, code: int
) -> None:
    result = rlp("check", whole, "--variant", "base_int8", *gates.split(), "--json")
    assert result.code == code
    assert result.json()["variant"] == "base_int8"
    assert rlp("check", whole, "--json").json()["variant"] == "final"


def test_a_variant_that_is_not_there_is_refused_with_those_that_are(
    rlp: fake_run.Rlp, whole: Path
) -> None:
    result = rlp("check", whole, "--variant", "final_int8")
    assert result.code == 2
    assert "base, base_int8, final" in result.lines("error")[0]


def test_the_table_at_the_end_shows_int8_alone_and_the_remarks(
    rlp: fake_run.Rlp, here: Path
) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    said = rlp("pipeline", "run", "fake.yaml")
    table = said.out + said.err
    assert "original, INT8 alone" in table
    assert "pruned (delivered)" in table
    assert "INT8 is [/a] remark" in table


def test_all_missed_gates_are_told(rlp: fake_run.Rlp, whole: Path) -> None:
    result = rlp("check", whole, "--min-speedup", "3", "--max-macs", "1")
    assert len(result.lines("error")) == 2
    assert len(result.lines("hint")) == 1


def test_speedup_gate_above_one_needs_the_verdict(
    rlp: fake_run.Rlp, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fake_run._content
    monkeypatch.setattr(
        fake_run,
        "_content",
        lambda *a: real(*a).replace(b'"faster"', b'"no difference shown"').replace(b"1.9", b"0.9"),
    )
    run = fake_run.finished(here / "run")
    assert rlp("check", run, "--min-speedup", "0.9").code == 0
    assert rlp("check", run, "--min-speedup", "1.1").code == 1


# --- what people type
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a b\nline", "ünï-例 [/a] [bold]x", "quote'\" %s {0} $HOME", "a" * 200]
)
def test_run_folder_of_any_name(rlp: fake_run.Rlp, here: Path, name: str) -> None:
    (here / "fake.yaml").write_text("seed: 0\n")
    run = here / name / "run"
    assert rlp("pipeline", "run", "fake.yaml", "--run-dir", run, "--json").json()["run"] == str(run)
    for command in (
        ("check", run),
        ("pipeline", "status", run),
        ("report", run),
        ("stage", "trace", "--run", run),
    ):
        assert rlp(*command).code == 0
    (run / "trace" / "graph.json").write_text("{}")
    failed = rlp("check", run, "--json")
    assert failed.code == 3
    assert len(failed.lines("error")) >= 1
    assert all(line.startswith(("error: ", "hint: ")) for line in failed.err.splitlines())
    assert " ".join(name.split()) in failed.lines("error")[0]
    assert str(run) in failed.json()["error"]["message"]


def test_markup_in_user_text_is_printed_as_it_is(rlp: fake_run.Rlp, here: Path) -> None:
    result = rlp("config", "show", "[/a][bold]nope[/bold].yaml")
    assert result.code == 2
    assert "error: [/a][bold]nope[/bold].yaml: no such config" in result.err
    (here / "fake.yaml").write_text("report: {title: '[/a] [red]x :smile:'}\n")
    assert "[/a] [red]x :smile:" in rlp("config", "show", "fake.yaml").out


def test_text_that_is_not_utf_8_is_refused(rlp: fake_run.Rlp, here: Path) -> None:
    result = rlp("pipeline", "run", "fake\udcff.yaml", "--json")
    assert_failure(result, 2)
    assert r"fake\udcff.yaml" in result.lines("error")[0]


@pytest.mark.parametrize("columns", ["40", "0", "x", "-5", "1"])
def test_any_width_of_the_terminal(
    rlp: fake_run.Rlp, whole: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = rlp("pipeline", "status", whole)
    assert result.code == 0
    assert "pretrain" in "".join(result.out.split())
    assert rlp("check", whole / "nope").lines("error")[0].endswith("not a run (no run.json)")


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


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("export", "rlp stage export"),
        ("run", "rlp pipeline run"),
        ("schema", "rlp config schema"),
        ("nonsense", "rlp --help"),
    ],
)
def test_an_unknown_command_is_told_by_its_whole_path(
    rlp: fake_run.Rlp, word: str, path: str
) -> None:
    result = rlp(word)
    assert result.code == 2
    assert result.lines("hint")[0].startswith(f"hint: {path} ")


def test_rlp_alone_prints_its_help_and_its_version_by_one_letter(rlp: fake_run.Rlp) -> None:
    assert (rlp().code, rlp().out) == (0, rlp("--help").out)
    assert rlp("-V").out == rlp("--version").out


def test_a_key_is_explained_and_a_misspelt_one_named(rlp: fake_run.Rlp) -> None:
    (row,) = rlp("config", "explain", "search.halving", "--json").json()["keys"]
    assert row["values"] == "true or false"
    assert (
        row["meaning"]
        == Config.model_fields["search"]
        .annotation.model_fields[  # type: ignore
            "halving"
        ]
        .description
    )
    keys = rlp("config", "explain", "search", "--json").json()["keys"]
    assert row in keys
    assert all(other["key"].startswith("search.") for other in keys)
    wrong = rlp("config", "explain", "search.halvin")
    assert (wrong.code, wrong.lines("hint")) == (2, ["hint: rlp config explain search.halving"])


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

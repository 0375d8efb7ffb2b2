"""The contract of the command line: exit codes, one `error:` and one `hint:` line, one JSON
document.
"""

from __future__ import annotations

from pathlib import Path

import fake_run
import pytest
from every_command import COMMANDS
from failures import ENVELOPE, assert_failure

pytestmark = pytest.mark.usefixtures("fakes")

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


def test_rlp_alone_prints_its_help_and_its_version_by_one_letter(rlp: fake_run.Rlp) -> None:
    assert (rlp().code, rlp().out) == (0, rlp("--help").out)
    assert rlp("-V").out == rlp("--version").out

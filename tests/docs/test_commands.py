"""Every command line on a page is one that the real parser takes. Nothing is run."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from pages import ROOT, Piece, command_lines

from pipeline.cli.app import app
from pipeline.config.load import build_config, bundled_configs, find_config, load_config
from pipeline.errors import RlpError
from stages import NAMES
from stages.search.strategies import STRATEGIES

RLP, PYTHON, MAKE = (command_lines(program) for program in ("rlp", "python", "make"))


class NotTaken(Exception):
    """What the parser, or a check of the values, says of a line."""


def parsed(line: str) -> dict[str, Any]:
    """The parameters that the command would be called with.

    Raises:
        NotTaken: unknown command, option, value or configuration key.
    """
    words = ["--force=all" if word == "--force" else word for word in shlex.split(line)[1:]]
    command = typer.main.get_command(app)
    found: list[dict[str, Any]] = []
    for leaf in leaves(command):
        leaf.callback = lambda **params: found.append(params)
    try:
        command.main(words, prog_name="rlp", standalone_mode=False)
    except Exception as error:
        raise NotTaken(f"{line}: {error or type(error).__name__}") from error
    if not found and not {"--help", "--version"} & set(words):
        raise NotTaken(f"{line}: is no whole command")
    return found[0] if found else {}


def names_a_command(line: str) -> bool:
    """Whether the line is the name of a command or of a group of commands, and nothing more."""
    command = typer.main.get_command(app)
    for word in line.split()[1:]:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            return False
    return True


def leaves(command: Any) -> list[Any]:
    """Commands that are no group."""
    inside = getattr(command, "commands", None)
    return [command] if inside is None else [x for c in inside.values() for x in leaves(c)]


def check(line: str) -> None:
    """Raise NotTaken where anything in the line does not exist."""
    params = parsed(line)
    try:
        _settings(params)
    except RlpError as error:
        raise NotTaken(f"{line}: {error.message}") from error
    stages = [params.get("first"), params.get("until"), params.get("name")]
    # `rlp data get NAME` has a name, too
    if line.startswith(("rlp stage ", "rlp pipeline ")):
        unknown = [s for s in stages if s and s.rpartition("/")[2] not in (*NAMES, "NAME")]
        if unknown:
            raise NotTaken(f"{line}: there is no stage {unknown[0]}")
    names = (params.get("strategies") or "").split(",")
    if any(name and name not in (*STRATEGIES, "A", "B") for name in names):
        raise NotTaken(f"{line}: there is no such strategy")


def _settings(params: dict[str, Any]) -> None:
    sets, config = params.get("sets") or [], params.get("config")
    if config and config.startswith("configs/") and not config.endswith("/NAME.yaml"):
        load_config(find_config(config), sets)
    else:
        # a placeholder such as my.yaml: what it overrides must exist all the same
        build_config({}, sets)


@pytest.mark.parametrize("piece", RLP, ids=lambda piece: piece.where)
def test_rlp_line_is_taken(piece: Piece) -> None:
    if piece.language != "inline" or not names_a_command(piece.text):
        check(piece.text)


def test_the_lines_are_found() -> None:
    pages = {piece.page for piece in RLP}
    assert len(RLP) > 40
    assert {"README.md", "CONTRIBUTING.md", "artifacts/README.md"} <= pages
    assert {f"configs/{name}" for name in bundled_configs()} <= pages


@pytest.mark.parametrize(
    "line",
    [
        "rlp pipeline walk configs/quickstart.yaml",
        "rlp pipeline run",
        "rlp pipeline",
        "rlp pipeline run configs/quickstart.yaml --budget 0.5",
        "rlp pipeline run configs/quickstart.yaml --set search.trails=20",
        "rlp pipeline run configs/quickstart.yaml --set search.trials=many",
        "rlp pipeline run configs/quick.yaml",
        "rlp pipeline run configs/quickstart.yaml --until lunch",
        "rlp stage find --run artifacts/quickstart",
        "rlp search compare configs/quickstart.yaml --strategies rl,luck",
        "rlp search front configs/quickstart.yaml --measured many",
        "rlp bench a.onnx b.onnx --batch many",
    ],
)
def test_a_wrong_line_is_caught(line: str) -> None:
    with pytest.raises(NotTaken):
        check(line)


def test_help_of_stage_names_every_stage() -> None:
    (command,) = (c for c in leaves(typer.main.get_command(app)) if c.name == "stage")
    (name,) = (p for p in command.params if p.name == "name")
    assert [stage for stage in NAMES if not re.search(rf"\b{stage}\b", name.help)] == []


@pytest.mark.parametrize("piece", PYTHON, ids=lambda piece: piece.where)
def test_script_and_its_options_exist(piece: Piece) -> None:
    words = [word for word in shlex.split(piece.text)[1:] if word not in ("-P", "-m")]
    script = ROOT / (words[0] if words[0].endswith(".py") else f"{words[0]}.py")
    source = script.read_text(encoding="utf-8")
    options = [word for word in words[1:] if word.startswith("--")]
    assert [option for option in options if f'"{option}"' not in source] == []


@pytest.mark.parametrize("piece", MAKE, ids=lambda piece: piece.where)
def test_make_target_exists(piece: Piece) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    named = [word for word in shlex.split(piece.text)[1:] if "=" not in word]  # no variables
    assert named
    assert set(named) <= set(targets)


def test_scripts_and_targets_are_found() -> None:
    assert len(PYTHON) > 5
    assert len(MAKE) > 3

"""What people type: names, markup, widths, and words that are nearly right."""

from __future__ import annotations

from pathlib import Path

import fake_run
import pytest
from failures import assert_failure

from pipeline.config.schema import Config

pytestmark = pytest.mark.usefixtures("fakes")


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

"""`rlp diff`: what differs between two runs, with intervals, and no more than can be said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest

from pipeline.run.artifacts import MANIFEST
from pipeline.run.comparing import compare, look_at
from pipeline.unpaired import unpaired_change

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture
def two(whole: Path, here: Path) -> tuple[Path, Path]:
    """The same run twice."""
    for name in ("a", "b"):
        shutil.copytree(whole, here / name)
    return here / "a", here / "b"


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    found = json.loads(path.read_bytes())
    change(found)
    path.write_text(json.dumps(found))


def test_the_same_run_shows_no_difference(two: tuple[Path, Path], rlp: fake_run.Rlp) -> None:
    result = rlp("diff", *two, "--json")
    assert result.code == 0
    doc = result.json()
    assert doc["settings"] == doc["made_with"] == []
    assert all(row["a"] == row["b"] for row in doc["widths"])
    assert (doc["accuracy"]["points"], doc["accuracy"]["shown"]) == (0, False)
    assert doc["speed"]["ratio"] == 1
    shown = rlp("diff", *two).out
    assert "the same settings" in shown
    assert shown.count("no difference shown") == 2


def test_settings_widths_and_answers_that_differ(two: tuple[Path, Path]) -> None:
    a, b = two
    fake_run.execute(b, ["search.trials=7"])
    _edit(b / "search" / "plan.json", lambda plan: plan.update(keep={"g": "0-3,8"}))

    def better(doc: Any) -> None:
        doc["data"]["test_images"] = 10_000
        doc["final"]["accuracy"] = 0.95
        doc["speedup"] |= {"ratio": 4.0, "ci95": [3.8, 4.2]}

    _edit(a / "report" / "summary.json", lambda doc: doc["data"].update(test_images=10_000))
    _edit(b / "report" / "summary.json", better)
    found = compare(look_at(a), look_at(b))
    assert found["settings"] == [{"key": "search.trials", "a": 100, "b": 7}]
    assert {"group": "g", "of": None, "a": None, "b": 5} in found["widths"]
    assert found["accuracy"]["shown"]
    low, high = found["accuracy"]["ci95"]
    assert low < 7 < high < 8.5
    speed = found["speed"]
    assert speed["ratio"] == 2
    assert speed["ci95"][0] < 1.9, "wider than each ratio's own"
    assert speed["ci95"][1] > 2.1


def test_times_against_other_originals_are_not_compared(
    two: tuple[Path, Path], rlp: fake_run.Rlp
) -> None:
    path = two[1] / "pretrain" / "manifest.json"
    body = MANIFEST.body(MANIFEST.read(path))
    body["outputs"]["model.safetensors"]["sha256"] = "0" * 64
    MANIFEST.write(path, body)
    found = compare(look_at(two[0]), look_at(two[1]))
    assert found["speed"]["ratio"] is None
    assert "another original; rlp bench " in found["speed"]["why_not"]


def test_unfinished_runs_are_compared_as_far_as_they_are(
    two: tuple[Path, Path], rlp: fake_run.Rlp
) -> None:
    shutil.rmtree(two[1] / "report")
    doc = rlp("diff", *two, "--json").json()
    assert doc["ok"]
    assert doc["accuracy"] is None
    assert doc["widths"]
    (two[1] / "search" / "plan.json").write_text("{")
    assert rlp("diff", *two, "--json").code == 3


def test_the_interval_of_accuracies_holds_the_difference_as_often_as_it_says() -> None:
    # Newcombe (1998), table II, example (a): 56/70 against 48/80, 0.0524 to 0.3339
    low, high = unpaired_change((80, 48 / 80), (70, 56 / 70))["ci95"]
    assert low == pytest.approx(5.24, abs=0.01)
    assert high == pytest.approx(33.39, abs=0.01)


def test_a_tab_completes_runs_and_configs(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.cli.completion import complete_config, complete_run

    shutil.copytree(two[0], "artifacts/mine")
    Path("x").mkdir()
    Path("x/my.yaml").touch()
    assert complete_run("") == ["artifacts/mine", "a/", "artifacts/", "b/", "x/"]
    assert complete_run("artifacts/m") == ["artifacts/mine", "artifacts/mine/"]
    assert complete_config("x/") == ["x/my.yaml"]
    assert "configs/quickstart.yaml" in complete_config("conf")
    assert complete_config(f"{Path.cwd()}/x/m") == [f"{Path.cwd()}/x/my.yaml"]
    assert complete_config("no/such/") == []

"""Gates of `rlp check`: what is missed, what is undecided, and of which variant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fake_run
import pytest

from pipeline.cli import running
from pipeline.paired import paired_change

pytestmark = pytest.mark.usefixtures("fakes")


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

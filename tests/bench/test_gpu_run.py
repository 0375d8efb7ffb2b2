"""The jobs of `make gpu`: side by side, cut off at the deadline, with the rows that were done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent)]

import gpu_board  # noqa: E402
import gpu_network  # noqa: E402
import gpu_run  # noqa: E402
from gpu_board import Board, Job  # noqa: E402


def _job(name: str, code: str, **facts: object) -> Job:
    return Job(name, [sys.executable, "-c", code], 0, **facts)  # type: ignore[arg-type]


def test_a_run_that_is_cut_off_leaves_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_board, "TICK", 0.05)
    row = tmp_path / "rows" / "quick.json"
    jobs = [
        _job("quick", f"open({str(row)!r}, 'w').write('[1]')"),
        _job("wrong", "raise SystemExit(3)"),
        _job("slow", "import time; time.sleep(600)"),
        _job("none", "", needs=(tmp_path / "absent",)),
        _job("late", "", heavy=True),
    ]
    board = Board(tmp_path, jobs, heavy=1, most=2)
    board.run(2.0)
    found = json.loads((tmp_path / "gpu.json").read_text())
    status = {name: job["status"] for name, job in found["jobs"].items()}
    assert status["none"] == "left out"
    assert status["quick"] == "done"
    assert status["wrong"] == "failed"
    assert found["jobs"]["wrong"]["exit_code"] == 3
    assert status["slow"] == "cut off"  # one heavy job at a time
    assert status["late"] == "waiting"
    assert found["rows"]["quick"] == [1]


def test_what_is_timed_begins_when_all_others_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_board, "TICK", 0.05)
    rows = tmp_path / "rows"
    out, there = str(rows / "timed.json"), str(rows)
    looks = f"import os; open({out!r}, 'w').write(str(len(os.listdir({there!r}))))"
    jobs = [
        _job("timed", looks, alone=True),
        _job("quick", f"open({str(rows / 'quick.json')!r}, 'w').write('1')"),
        _job("slow", "import time; time.sleep(600)"),
    ]
    Board(tmp_path, jobs, heavy=2, most=3).run(6.0, alone=4.0)
    found = json.loads((tmp_path / "gpu.json").read_text())
    status = {name: job["status"] for name, job in found["jobs"].items()}
    assert status == {"timed": "done", "quick": "done", "slow": "cut off"}
    assert found["rows"]["timed"] == 2  # its own file and the other's row


@pytest.mark.smoke
def test_one_network_dry(tmp_path: Path) -> None:
    places = gpu_run.Places(tmp_path, tmp_path, tmp_path, tmp_path, dry=True)
    sets = ["search.budget.macs=0.4", "model.weights=null",
            "data.mean=null", "data.std=null"]  # fmt: skip
    command = gpu_run._network(places, "short", "resnet20_cifar.yaml", sets)
    Board(tmp_path, [Job("short", command, 0)], heavy=1, most=1).run(500)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["jobs"]["short"]["status"] == "done", (tmp_path / "logs" / "short.log").read_text()
    row = found["rows"]["short"]
    assert row["done"]
    assert row["macs"]["after"] <= 0.4 * row["macs"]["before"]
    assert set(row["stages"]) == {*gpu_network.STAGES, "export"}
    assert row["test_accuracy"]["images"] == 20

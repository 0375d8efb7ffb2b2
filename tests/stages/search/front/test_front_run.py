"""`rlp search front` in a run folder: the document, and that typing it again repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from search_stages import MadeUpTimer, made_run

import stages.search.front_run as module
import stages.search.latency.calibration as calibration
from pipeline.config.schema import Config
from pipeline.run.artifacts import document
from pipeline.run.stage import SilentReporter


class Stopping(SilentReporter):
    """Ctrl-C once so many plans are reconstructed and measured."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, list[tuple[str, int, int]]()

    def progress(self, done: int, total: int, **fields: Any) -> None:
        self.seen.append((fields["what"], done, total))
        if fields["what"].startswith("plans") and done == self.after:
            raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose network is the trained one."""
    monkeypatch.setattr(module, "BUDGETS", 8)
    return made_run(tmp_path, module, monkeypatch)


def front(folder: Path, measured: int = 3, after: int = 0, **search: Any) -> dict[str, Any]:
    values = {"fit_images": 64, "table": {"images": 40, "widths": 2}, **search}
    config = Config(search=values, reconstruct={"images": 64})
    return module.RunFront(folder, config, Stopping(after)).run(measured)


def test_the_front_is_written_and_is_what_is_returned(folder: Path) -> None:
    body = front(folder)
    written = document("front").read(folder / "front.json")
    assert document("front").body(written) == body
    points = body["points"]
    assert 1 <= sum(point["measured"] for point in points) <= 4
    for key in ("macs", "accuracy"):
        assert [point[key] for point in points] == sorted(point[key] for point in points)


def test_interrupted_and_typed_again_it_gives_the_same_bytes(folder: Path) -> None:
    front(folder)
    whole = (folder / "front.json").read_bytes()
    (journal,) = (folder / ".work").glob("front-*.jsonl")
    lines = journal.read_text()
    journal.unlink()
    (folder / "front.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        front(folder, after=2)
    left = journal.read_text()
    assert left.count('"phase": "front"') == 2
    front(folder)
    assert (folder / "front.json").read_bytes() == whole
    assert journal.read_text().startswith(left)
    assert len(journal.read_text().splitlines()) == len(lines.splitlines())


def test_another_value_of_the_budget_is_the_same_front_another_metric_is_not(folder: Path) -> None:
    first = front(folder, budget={"macs": 0.5})
    assert front(folder, budget={"macs": 0.001}) == first, "not even one within reach matters"
    assert front(folder, budget={"accuracy_drop": 1, "of": "macs"}) == first
    assert len(list((folder / ".work").glob("front-*.jsonl"))) == 1
    assert front(folder, budget={"params": 0.5})["metric"] == "params"
    assert len(list((folder / ".work").glob("front-*.jsonl"))) == 2


def test_without_any_measured_plan_accuracies_come_from_the_table(folder: Path) -> None:
    points = front(folder, measured=0)["points"]
    assert len({point["accuracy"] for point in points}) > 2
    assert [point["measured"] for point in points] == [False] * (len(points) - 1) + [True]


def test_by_latency_every_point_says_what_it_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "CandidateTimer", MadeUpTimer)
    body = front(folder, measured=1, budget={"accuracy_drop": 1}, latency_samples=10)
    assert body["metric"] == "latency"
    for point in body["points"]:
        assert 0 < point["latency"] <= point["budget"] * (1 + 1e-9)
    (journal,) = (folder / ".work").glob("front-*.jsonl")
    timings = journal.read_text().count('"phase": "latency"')
    assert front(folder, 1, budget={"accuracy_drop": 1}, latency_samples=10) == body
    assert json.loads(journal.read_text().splitlines()[0])["of"]["metric"] == "latency"
    assert journal.read_text().count('"phase": "latency"') == timings

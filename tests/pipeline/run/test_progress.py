"""What is said of a stage that is being made, or was left unfinished."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fake_run
import pytest

from pipeline.errors import Interrupted, UsageError
from pipeline.run.lock import holder
from pipeline.run.stage import StageContext

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose search was stopped after four of its six steps."""
    monkeypatch.chdir(tmp_path)
    Path("fake.yaml").write_text("seed: 0\n")
    steps: list[None] = []

    def stopping(self: StageContext) -> bool:
        steps.append(None)
        return len(steps) > 4

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageContext, "stopping", stopping)
        with pytest.raises(Interrupted):
            fake_run.execute(tmp_path / "run")
    return tmp_path / "run"


def _row(rlp: fake_run.Rlp, *arguments: object) -> dict[str, Any]:
    rows = rlp("pipeline", *arguments, "--json").json()["stages"]
    return next(row for row in rows if row["stage"] == "search")


def _search(rlp: fake_run.Rlp, run: Path, *sets: str) -> tuple[str, str]:
    """What status and plan say of the search."""
    status = rlp("pipeline", "status", run).out
    plan = rlp("pipeline", "plan", "fake.yaml", "--run-dir", run, *sets).out
    found = [next(ln for ln in s.splitlines() if ln.startswith("search")) for s in (status, plan)]
    return found[0], found[1]


def test_trials_on_disk_and_checkpoints_are_what_it_resumes_at(
    interrupted: Path, rlp: fake_run.Rlp
) -> None:
    work = interrupted / ".work" / "search"
    assert all("unfinished, starts over" in said for said in _search(rlp, interrupted))
    (work / "progress.json").write_text('{"done": 54, "total": 336, "what": ""}')
    (work / "trials.jsonl").write_text("")
    assert all("unfinished, resumes at 54/336" in said for said in _search(rlp, interrupted))
    (work / "trials.jsonl").unlink()
    (work / "checkpoint.json").write_text('{"progress": {"step": 48}}')
    assert all("unfinished, resumes at 48/336" in said for said in _search(rlp, interrupted))
    assert _row(rlp, "status", interrupted)["progress"]["done"] == 48
    other = _search(rlp, interrupted, "--set", "search.trials=7")[1]
    assert "unfinished" not in other, "what it has kept is of other settings"


def test_nonsense_in_the_scratch_is_no_progress(interrupted: Path, rlp: fake_run.Rlp) -> None:
    work = interrupted / ".work" / "search"
    (work / "checkpoint.json").write_text('{"progress": {"step": 48}}')
    for text in ("", "[]", '{"done": "x", "total": 1, "what": ""}', '{"done": 1}'):
        (work / "progress.json").write_text(text)
        assert all("unfinished, starts over" in said for said in _search(rlp, interrupted))
    (work / "needs.json").write_text("[]")
    assert all("unfinished" not in said for said in _search(rlp, interrupted))


def test_a_stage_that_is_being_made_names_its_process(
    tmp_path: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fake.yaml").write_text("seed: 0\n")
    said: list[tuple[str, str]] = []
    journal, run = fake_run.Fake._journal, tmp_path / "run"

    def looked_at(self: Any, ctx: StageContext) -> int:
        done = journal(self, ctx)
        said.append(_search(rlp, run))
        return done

    monkeypatch.setattr(fake_run.Fake, "_journal", looked_at)
    fake_run.execute(run)
    assert all(f"running ({os.getpid()}), 6/6" in one for one in said[0])
    assert holder(run) is None
    assert "running" not in rlp("pipeline", "status", run).out


def test_an_unfinished_training_is_not_lost_to_another_config(
    interrupted: Path, rlp: fake_run.Rlp
) -> None:
    record = json.loads((interrupted / "run.json").read_bytes())
    assert record["config_name"] == "fake.yaml"
    (interrupted / ".work" / "search" / "checkpoint.json").write_text('{"progress": {"step": 4}}')
    Path("other.yaml").write_text("search: {trials: 7}\n")
    refused = rlp("pipeline", "run", "other.yaml", "--run-dir", interrupted)
    assert refused.code == 2
    assert "unfinished search would be lost" in refused.lines("error")[0]
    assert (interrupted / ".work" / "search" / "checkpoint.json").exists()
    assert rlp("pipeline", "run", "fake.yaml", "--run-dir", interrupted).code == 0


def test_a_command_that_fails_before_it_writes_leaves_no_folder(
    tmp_path: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("seed: 0\n")
    refused = rlp("stage", "prune", "--config", "my.yaml")
    assert refused.code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_a_first_stage_that_refuses_leaves_no_folder_and_a_checkpoint_stays(
    tmp_path: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(stage: Any, ctx: Any) -> Any:
        ctx.progress(1, 2)
        if checkpoint:
            (ctx.work / "checkpoint.json").write_text("{}")
        raise UsageError("the network returns a dict")

    monkeypatch.setattr(type(fake_run.STAGES[0]), "run", refuse)
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("seed: 0\n")
    checkpoint = False
    assert rlp("pipeline", "run", "my.yaml").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]
    checkpoint = True
    assert rlp("pipeline", "run", "my.yaml").code == 2
    assert Path("artifacts/my/.work/pretrain/checkpoint.json").exists()
    assert Path("artifacts/my/run.json").exists()

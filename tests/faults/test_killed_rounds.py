"""SIGKILL in a run of several rounds, over stages that write a few bytes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import fake_run
import pytest
from fault_tools import Disk, die, fork, until_it_passes, wait

pytestmark = pytest.mark.usefixtures("fakes")
TWO = ("rounds=2",)


def test_killed_at_every_rename_and_folder_of_an_earlier_round_it_ends_the_same(
    tmp_path: Path,
) -> None:
    fake_run.execute(tmp_path / "old", TWO, last="pretrain")
    fake_run.execute(tmp_path / "whole", TWO, last="round-1/search")
    expected = fake_run.committed(tmp_path / "whole")
    kills = 0

    def attempt(n: int) -> bool:
        nonlocal kills
        run = Path(shutil.copytree(tmp_path / "old", tmp_path / f"run{n}"))

        def doomed() -> None:
            with Disk(("rename", "mkdir"), n, die).patched():
                fake_run.execute(run, TWO, last="round-1/search")

        status = wait(fork(doomed))
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        fake_run.execute(run, TWO, last="round-1/search")
        assert fake_run.committed(run) == expected
        left = {path.name for path in run.rglob(".*") if path.name not in (".lock", ".work")}
        assert left == set()
        assert list(run.rglob(".work/*")) == []
        shutil.rmtree(run)
        return status == 0

    until_it_passes(attempt)
    assert kills > 15


def test_what_a_kill_left_in_an_earlier_round_is_finished_or_swept(tmp_path: Path) -> None:
    run = fake_run.finished(tmp_path / "run", TWO)
    expected = fake_run.committed(run)
    (run / "round-1" / ".staging-search").mkdir()
    (run / "round-1" / "prune").rename(run / "round-1" / ".old-prune")
    watcher = fake_run.execute(run, TWO)
    assert watcher.ran() == []
    assert watcher.notes == [
        "round-1/prune: an interrupted commit was undone",
        "round-1/search: unfinished files were swept",
    ]
    assert fake_run.committed(run) == expected
    assert {path.name for path in run.rglob(".*")} <= {".lock", ".work"}

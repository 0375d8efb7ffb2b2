"""SIGKILL at any instant: re-typing the command resumes, nothing is torn, the result is the
uninterrupted one's.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import fake_run
import pytest
from fault_tools import (
    Disk,
    assert_nothing_left,
    assert_nothing_torn,
    die,
    fork,
    until_it_passes,
    wait,
)

pytestmark = pytest.mark.usefixtures("fakes")
STAGES = fake_run.STAGES[:3]
SETS = ("seed=1",)


def test_killed_at_every_disk_operation_of_a_first_run(tmp_path: Path) -> None:
    kills = _kill_everywhere(tmp_path, first=None, operations=("write", "rename", "mkdir"))
    assert kills > 50, "the loop met too few operations to mean anything"


def test_killed_at_every_disk_operation_of_a_second_run_that_replaces_the_first(
    tmp_path: Path,
) -> None:
    fake_run.execute(tmp_path / "old", stages=STAGES)
    assert (
        _kill_everywhere(tmp_path, first=tmp_path / "old", operations=("fsync", "rename", "mkdir"))
        > 50
    )


def _kill_everywhere(tmp_path: Path, first: Path | None, operations: tuple[str, ...]) -> int:
    fake_run.execute(tmp_path / "whole", SETS, STAGES)
    expected, log = fake_run.committed(tmp_path / "whole"), tmp_path / "child.txt"
    kills = 0

    def attempt(n: int) -> bool:
        nonlocal kills
        run = tmp_path / f"run{n}"
        if first:
            shutil.copytree(first, run)

        def doomed() -> None:
            with Disk(operations, n, die).patched():
                fake_run.execute(run, SETS, STAGES)

        status = wait(fork(doomed, log=log))
        assert status in (0, -signal.SIGKILL), log.read_text()
        kills += status != 0
        assert_nothing_torn(run)
        fake_run.execute(run, SETS, STAGES)
        assert fake_run.committed(run) == expected
        assert_nothing_left(run)
        shutil.rmtree(run)
        return status == 0

    until_it_passes(attempt)
    return kills


def test_killed_at_random_instants_again_and_again(tmp_path: Path) -> None:
    """At least 25 kills of runs over one folder, each run resumed until it comes to its end.

    The kernel ends the child after a random share of processor time, so that a busy machine changes
    nothing.
    """
    run, chance, kills = tmp_path / "run", random.Random(0), 0

    def doomed() -> None:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, limit)
        fake_run.execute(run, [f"seed={seed}"])

    for seed in range(100):
        began = time.process_time()
        expected = fake_run.committed(
            fake_run.finished(tmp_path / f"whole{seed}", [f"seed={seed}"])
        )
        whole = time.process_time() - began
        limit = chance.uniform(0.001, whole)
        while (status := wait(fork(doomed))) != 0:
            assert status == -signal.SIGPROF
            kills += 1
            assert_nothing_torn(run)
            limit = chance.uniform(0.001, whole)
        assert fake_run.committed(run) == expected
        assert_nothing_left(run)
        if kills >= 25:
            return
    pytest.fail(f"only {kills} kills met a run that was going on")


def test_unfinished_stage_goes_on_from_its_journal(tmp_path: Path) -> None:
    log = tmp_path / "steps"

    def doomed() -> None:
        watched = fake_run.Fake.steps_log = str(log)
        with Disk(("rename",), 0, die).patched() as disk:
            disk.action = lambda _: (
                die("") if Path(watched).exists() and Path(watched).stat().st_size >= 3 else None
            )
            disk.hit = lambda operation: disk.action(operation)  # type: ignore[method-assign]
            fake_run.execute(tmp_path / "run")

    assert wait(fork(doomed)) == -signal.SIGKILL
    assert log.read_bytes() == b"..."
    _logged(tmp_path / "run", log, "seed=0")
    assert len(log.read_bytes()) == fake_run.STEPS, "steps that were journalled were done again"


def test_journal_of_other_settings_is_not_taken_over(tmp_path: Path) -> None:
    log, run = tmp_path / "steps", tmp_path / "run"
    work = run / ".work" / "search"
    fake_run.finished(run)
    work.mkdir(parents=True)
    (work / "journal.json").write_text('{"done": 5}')
    (work / "needs.json").write_text("{}")
    _logged(run, log, "search.trials=3")
    assert len(log.read_bytes()) == fake_run.STEPS


def _logged(run: Path, log: Path, *sets: str) -> None:
    fake_run.Fake.steps_log = str(log)
    try:
        fake_run.execute(run, sets)
    finally:
        fake_run.Fake.steps_log = ""

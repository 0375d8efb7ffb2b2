"""The n-th write, fsync, rename … fails: exit 4 with a path, committed artefacts untouched, the
next run completes.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import fake_run
import pytest
from fault_tools import OPERATIONS, Disk, assert_nothing_torn, failing, until_it_passes

from pipeline.errors import EnvironmentProblem
from pipeline.run import store

pytestmark = pytest.mark.usefixtures("fakes")
STAGES = fake_run.STAGES[:3]
SETS = ("seed=1",)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nth_operation_fails(tmp_path: Path, operation: str) -> None:
    fake_run.execute(tmp_path / "old", stages=STAGES)
    old = fake_run.tree(tmp_path / "old")
    fake_run.execute(tmp_path / "whole", SETS, STAGES)
    expected = fake_run.committed(tmp_path / "whole")
    failures = 0

    def attempt(n: int) -> bool:
        nonlocal failures
        run = tmp_path / f"run{n}"
        shutil.copytree(tmp_path / "old", run)
        code = errno.ENOSPC if n % 2 else errno.EIO
        with Disk((operation,), n, failing(code)).patched() as disk:
            problem = _problem(run)
        passed = disk.count < n
        if problem is None:
            assert fake_run.committed(run) == expected
        else:
            failures += 1
            assert str(run) in problem.message
            assert problem.hint
        _each_stage_wholly_old_or_new(run, old)
        assert not list(run.glob("**/*.tmp")), "a temporary file was left"
        fake_run.execute(run, SETS, STAGES)
        assert fake_run.committed(run) == expected
        shutil.rmtree(run)
        return passed

    until_it_passes(attempt)
    assert failures >= 2


def _problem(run: Path) -> EnvironmentProblem | None:
    """What a run ends with; anything but success or exit 4 fails the test."""
    try:
        fake_run.execute(run, SETS, STAGES)
    except EnvironmentProblem as error:
        return error
    return None


def _each_stage_wholly_old_or_new(run: Path, old: dict[str, bytes]) -> None:
    assert_nothing_torn(run)
    now = fake_run.tree(run)
    assert now.keys() == old.keys(), "a committed file is gone"
    for stage in STAGES:
        mine = [name for name in old if name.startswith(f"{stage.name}/")]
        untouched = [now[name] == old[name] for name in mine]
        assert all(untouched) or not any(untouched), f"{stage.name} is a mixture of old and new"


def test_folder_that_cannot_be_made_is_refused_before_any_work(
    tmp_path: Path, rlp: fake_run.Rlp
) -> None:
    (tmp_path / "c.yaml").write_text("seed: 0\n")
    (tmp_path / "file").write_text("")
    for folder in ("/proc/rlp-run", tmp_path / "file", tmp_path / "file" / "below"):
        result = rlp("pipeline", "run", tmp_path / "c.yaml", "--run-dir", folder)
        assert result.code == 4
        assert str(folder) in result.lines("error")[0]
        assert len(result.lines("hint")) == 1


def test_read_error_of_an_artefact_is_an_environment_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, {})

    def broken(*args: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", broken)
    for read in (store.sha256_file, store.read_json):
        with pytest.raises(EnvironmentProblem, match=r"a\.json: Input/output error"):
            read(path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
    ],
)
def test_resources_that_run_out_inside_a_stage(
    tmp_path: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def run(self: object, ctx: object) -> None:
        raise error

    (tmp_path / "c.yaml").write_text("seed: 0\n")
    monkeypatch.setattr(type(fake_run.STAGES[4]), "run", run)  # distill
    result = rlp("pipeline", "run", tmp_path / "c.yaml", "--run-dir", tmp_path / "run")
    assert result.code == 4
    assert said in result.lines("error")[0]
    if "memory" in said:
        assert "distill.batch_size" in result.lines("hint")[0]
    assert fake_run.plan(tmp_path / "run")["prune"].action == "reuse"

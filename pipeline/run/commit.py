"""The commit of a stage's folder: staged beside it, put in its place at once, recovered after a
kill.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.run.artifacts import MANIFEST
from pipeline.run.store import disk_errors, fsync_folder

_STAGING = ".staging-"
_OLD = ".old-"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def staging(run: Path, stage: str) -> Iterator[Path]:
    """A fresh folder to write a stage's outputs into; removed unless `commit` took it."""
    folder = run / f"{_STAGING}{stage}"
    with disk_errors(folder):
        _remove(folder)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def commit(run: Path, stage: str, folder: Path) -> None:
    """Put a complete staging folder (its manifest was written last) in the stage's place.

    Killed between the two renames, `recover` rolls forward.
    """
    target, old = run / stage, run / f"{_OLD}{stage}"
    with disk_errors(target):
        fsync_folder(folder)
        _remove(old)
        if os.path.lexists(target):
            os.rename(target, old)  # a rename does not replace a folder that has files
        try:
            os.rename(folder, target)
        except BaseException:  # the result before is still good: back with it
            if os.path.lexists(old) and not os.path.lexists(target):
                os.rename(old, target)
            raise
        # first: until the disk has the new name, the old result is all there is
        fsync_folder(run)
        _remove(old)


def recover(run: Path) -> list[str]:
    """Finish or sweep what a killed process left behind; returns one sentence for each thing done.

    Raises:
        EnvironmentProblem: the disk said no.
    """
    with disk_errors(run):
        return _recover(run)


def _recover(run: Path) -> list[str]:
    done: list[str] = []
    for old in sorted(run.glob(f"{_OLD}*")):
        stage = old.name.removeprefix(_OLD)
        target, fresh = run / stage, run / f"{_STAGING}{stage}"
        if not os.path.lexists(target):
            forward = (fresh / MANIFEST.file).is_file()  # written last: all else is there
            os.rename(fresh if forward else old, target)
            done.append(f"{stage}: an interrupted commit was {'finished' if forward else 'undone'}")
        _remove(old)
    for fresh in sorted(run.glob(f"{_STAGING}*")):  # after the loop that may still need one
        _remove(fresh)
        done.append(f"{fresh.name.removeprefix(_STAGING)}: unfinished files were swept")
    for torn in [*run.glob(".*.tmp"), *run.glob(".work/*/.*.tmp")]:
        torn.unlink(missing_ok=True)
    return done

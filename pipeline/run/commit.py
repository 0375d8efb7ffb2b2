"""The commit of a stage's folder: staged beside it, put in its place at once, recovered after a
kill.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.run.artifacts import MANIFEST
from pipeline.run.inside import WORK, Folder, open_run
from pipeline.run.store import disk_errors

_STAGING = ".staging-"
_OLD = ".old-"


@contextmanager
def staging(home: Folder, stage: str) -> Iterator[Path]:
    """A fresh folder to write a stage's outputs into; removed unless `commit` took it."""
    name = f"{_STAGING}{stage}"
    with disk_errors(home.path / name):
        home.remove(name)
        home.make(name)
    try:
        yield home.path / name
    finally:
        home.remove(name)


def commit(home: Folder, stage: str) -> None:
    """Put the complete staging folder (its manifest was written last) in the stage's place.

    Killed between the two renames, `recover` rolls forward.

    Raises:
        EnvironmentProblem: the disk said no; the result before is then in its place.
    """
    fresh, old = f"{_STAGING}{stage}", f"{_OLD}{stage}"
    with disk_errors(home.path / stage):
        with home.folder(fresh) as folder:
            folder.sync()
        home.remove(old)
        if home.has(stage):
            home.rename(stage, old)  # a rename does not replace a folder that has files
        try:
            home.rename(fresh, stage)
        except BaseException:  # the result before is still good: back with it
            if home.has(old) and not home.has(stage):
                home.rename(old, stage)
            raise
        # first: until the disk has the new name, the old result is all there is
        home.sync()
        home.remove(old)


def recover(run: Path, *inner: str) -> list[str]:
    """Finish or sweep what a killed process left behind in a run, or in the folder `inner` of it;
    returns one sentence for each thing done.

    Raises:
        ArtifactError: a link leads out of the run; nothing behind it was touched.
        EnvironmentProblem: the disk said no.
    """
    with open_run(run, *inner) as home, disk_errors(home.path):
        _sweep_scratch(home)  # first: a link there is refused before anything is done
        return _recover(home)


def _recover(home: Folder) -> list[str]:
    done: list[str] = []
    for old in home.names(_OLD):
        stage = old.removeprefix(_OLD)
        if not home.has(stage):
            fresh = f"{_STAGING}{stage}"
            forward = _complete(home, fresh)
            home.rename(fresh if forward else old, stage)
            done.append(f"{stage}: an interrupted commit was {'finished' if forward else 'undone'}")
        home.remove(old)
    for fresh in home.names(_STAGING):  # after the loop that may still need one
        home.remove(fresh)
        done.append(f"{fresh.removeprefix(_STAGING)}: unfinished files were swept")
    _sweep(home)
    return done


def _complete(home: Folder, fresh: str) -> bool:
    """Whether a staging folder is there, with its manifest, which is written last."""
    if not home.has_folder(fresh):
        return False
    with home.folder(fresh) as folder:
        return folder.has(MANIFEST.file)


def _sweep_scratch(home: Folder) -> None:
    if home.has(WORK):
        with home.folder(WORK) as work:
            for name in filter(work.has_folder, work.names()):
                with work.folder(name) as scratch:
                    _sweep(scratch)


def _sweep(folder: Folder) -> None:
    """Remove files that were being written."""
    for torn in folder.names(".", ".tmp"):
        if not folder.has_folder(torn):
            folder.remove(torn)

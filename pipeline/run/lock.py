"""The lock on a run: one process at a time, and who it is."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, Locked
from pipeline.run.store import check_regular, disk_errors, read_json, write_json

_LOCK, _OWNER = OWN = (".lock", ".owner.json")
"""Files of the lock in a run."""


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run; the kernel frees it when the process ends, however it ends.

    A folder that was made for it goes again where nothing was put into it.

    Raises:
        Locked: another live process holds it; names pid and host.
        ArtifactError: its lock file is a link.
        EnvironmentProblem: the folder cannot be made or written.
    """
    from filelock import FileLock, Timeout

    owner, made = run / _OWNER, _missing(run)
    with disk_errors(run):
        run.mkdir(parents=True, exist_ok=True)
        lock_file = run / _LOCK
        if os.path.lexists(lock_file):  # in a run of a stranger's it may be a link to anything
            check_regular(lock_file, single=True)
        held = FileLock(lock_file)
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise Locked(
                f"{run}: in use by {_owner_text(run)}",
                hint="wait for it, or pass another --run-dir",
            ) from None
    try:
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        owner.unlink(missing_ok=True)  # before the release: afterwards it may be the next one's
        if made and os.listdir(run) == [_LOCK]:
            lock_file.unlink()
        held.release()
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


def _missing(run: Path) -> list[Path]:
    """Folders that would have to be made, innermost first."""
    return [folder for folder in (run, *run.parents) if not folder.exists()]


def holder(run: Path) -> dict[str, Any] | None:
    """`pid` and `host` of the live process that holds the run; None where nobody does."""
    try:
        with open(os.open(run / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            owner = _owner(run)  # not there after an orderly end
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return {"pid": int(owner["pid"]), "host": str(owner["host"])}
    except (OSError, ArtifactError, ValueError, KeyError, TypeError):
        pass
    return None


def _owner(run: Path) -> Any:
    return read_json(run / _OWNER, max_bytes=1 << 16)


def _owner_text(run: Path) -> str:
    try:
        info = _owner(run)
        return f"process {info['pid']} on {info['host']}"
    except (ArtifactError, KeyError, TypeError):  # only a courtesy: the lock holds without it
        return "another process"

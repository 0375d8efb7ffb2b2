"""Make the n-th disk operation fail, or kill the process there; run things in a forked child."""

from __future__ import annotations

import io
import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import fake_run

from pipeline.run.manifest import damaged_outputs, read_manifest

OPERATIONS = ("open", "write", "fsync", "rename", "mkdir")


class _Writer(io.BufferedWriter):
    """A file whose writes are counted; half of the data reaches the disk before one fails."""

    hit: Callable[[str], None] = staticmethod(lambda _: None)

    def write(self, data: Any) -> int:
        try:
            self.hit("write")
        except BaseException:
            super().write(data[: len(data) // 2])
            raise
        return super().write(data)


class Disk:
    """Counts disk operations and calls `action(operation)` on the n-th one (1-based)."""

    def __init__(self, operations: tuple[str, ...], n: int, action: Callable[[str], None]) -> None:
        self.operations, self.n, self.action, self.count = operations, n, action, 0

    def hit(self, operation: str) -> None:
        if operation in self.operations:
            self.count += 1
            if self.count == self.n:
                self.action(operation)

    @contextmanager
    def patched(self) -> Iterator[Disk]:
        real = {
            name: getattr(os, name)
            for name in ("open", "fsync", "rename", "replace", "mkdir", "fdopen")
        }

        def counted(operation: str, name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if operation != "open" or args[1] & (os.O_WRONLY | os.O_RDWR):
                    self.hit(operation)
                return real[name](*args, **kwargs)

            return call

        def fdopen(handle: int, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode != "wb":
                return real["fdopen"](handle, mode, *args, **kwargs)
            writer = _Writer(io.FileIO(handle, "w"))
            writer.hit = self.hit  # type: ignore[method-assign]
            return writer

        names = {
            "open": "open",
            "fsync": "fsync",
            "rename": "rename",
            "replace": "rename",
            "mkdir": "mkdir",
        }
        replaced = {name: counted(operation, name) for name, operation in names.items()}
        with mock.patch.multiple(os, fdopen=fdopen, **replaced):
            yield self


def failing(code: int) -> Callable[[str], None]:
    """An action that fails as the kernel would."""

    def fail(operation: str) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def die(_operation: str) -> None:
    """An action that is `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def fork(work: Callable[[], Any], *, log: Path | None = None) -> int:
    """Run `work` in a forked child and give back its pid; the child ends with 0, or 99 after an
    exception.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        work()
        code = 0
    except BaseException:
        if log is not None:
            log.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Exit status of a child, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def assert_nothing_torn(run: Path) -> None:
    """Whatever lies in a stage folder is a complete commit."""
    for stage in fake_run.STAGES:
        if (run / stage.name).exists():
            manifest = read_manifest(run, stage.name)
            assert manifest is not None, f"{stage.name} has no manifest"
            assert damaged_outputs(run, stage.name, manifest) == {}


def assert_nothing_left(run: Path) -> None:
    """After a run that came to its end: no staging, no temporary file, no scratch."""
    hidden = {path.name for path in run.iterdir() if path.name.startswith(".")}
    assert hidden <= {".lock", ".work"}, hidden
    assert list(run.glob(".work/*")) == []


def until_it_passes(attempt: Callable[[int], bool], limit: int = 2000) -> int:
    """Call `attempt(1)`, `attempt(2)`, … until one gives True; gives its number."""
    return next(n for n in itertools.count(1) if attempt(n) or n >= limit)

"""Work done in one child process a task, so that no task can end the run: not by an exception,
not by a crash, not by taking all the memory or for ever.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Task = TypeVar("Task")
Work = Callable[[Any], Any]

# A forked child has torch imported already; elsewhere each child pays for its own imports.
_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


@dataclass(frozen=True)
class Failure:
    """Why a task has no result, in one line."""

    reason: str


@dataclass
class _Child:
    task: Any
    process: BaseProcess
    pipe: Connection
    until: float


def run_each(
    work: Work, tasks: Iterable[Task], *, workers: int = 1, seconds: float = 600, gib: float = 0
) -> Iterator[tuple[Task, Any]]:
    """Yield (task, what `work(task)` returned, or a Failure) as the tasks end.

    Args:
        seconds: a task that takes longer is killed.
        gib: memory a task may take; 0 leaves it to the system.
    """
    waiting, running = list(reversed(list(tasks))), list[_Child]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_start(work, waiting.pop(), seconds, gib))
            ready = wait([child.pipe for child in running], timeout=0.5)
            for child in list(running):
                if child.pipe in ready:
                    running.remove(child)
                    yield child.task, _received(child)
                elif time.monotonic() > child.until:
                    running.remove(child)
                    _end(child)
                    yield child.task, Failure(f"killed after {seconds:.0f} s")
    finally:
        for child in running:
            _end(child)


def _start(work: Work, task: Any, seconds: float, gib: float) -> _Child:
    sys.stdout.flush()  # or the child prints what is waiting here once more
    context: Any = multiprocessing.get_context(_METHOD)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, work, task, gib), daemon=True)
    process.start()
    there.close()
    return _Child(task, process, here, time.monotonic() + seconds)


def _child(pipe: Connection, work: Work, task: Any, gib: float) -> None:
    if gib:
        _limit_memory(int(gib * 2**30))
    try:
        pipe.send(work(task))
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error).strip().partition("\n")[0]
        pipe.send(Failure(f"{type(error).__name__}: {text} ({place.filename}:{place.lineno})"))


def _limit_memory(size: int) -> None:
    try:
        import resource  # not on every system

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    except (ImportError, OSError, ValueError):
        print("no limit of memory can be set here", file=sys.stderr)


def _received(child: _Child) -> Any:
    try:
        result = child.pipe.recv()
    except EOFError:
        child.process.join()
        return Failure(f"the process died with exit code {child.process.exitcode}")
    child.process.join()
    return result


def _end(child: _Child) -> None:
    child.process.kill()
    child.process.join()

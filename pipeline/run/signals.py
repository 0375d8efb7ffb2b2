"""Ctrl-C and SIGTERM while a run is going."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.run.stage import Reporter


@contextmanager
def stop_signals(reporter: Reporter) -> Iterator[Callable[[], int]]:
    """The first Ctrl-C or SIGTERM asks to finish the atomic step and save; the second one raises
    KeyboardInterrupt.

    Yields:
        a function that gives the number of the first signal, 0 before it came.
    """
    seen: list[int] = []

    def handle(number: int, _frame: Any) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt
        reporter.note("saving, then stopping; once more to stop at once")

    previous: dict[int, Any] = {}
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        try:
            previous[number] = signal.signal(number, handle)
        except ValueError:  # not in the main thread: the caller keeps its own handlers
            break
    try:
        yield lambda: seen[0] if seen else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

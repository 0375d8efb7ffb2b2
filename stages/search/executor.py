"""Where candidates are evaluated: here, or in worker processes; a cluster engine would be a third.

An executor turns jobs into outcomes, in any order, and each outcome depends on its job alone.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Protocol

import torch

from pipeline.errors import EnvironmentProblem
from stages.search.evaluate import Outcome
from stages.search.space import Counts

Bars = tuple[float, ...]
Job = tuple[Counts, Bars]
Evaluate = Callable[[Counts, Bars], Outcome]


class Executor(Protocol):
    """Evaluates (counts, bars) jobs."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Yield (index of the job, outcome) as they finish."""
        ...


class InProcess:
    """One after the other, in this process."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        for index, (counts, bars) in enumerate(jobs):
            yield index, self.evaluate(counts, bars)


class Pool:
    """Worker processes of one thread each; small convolutions gain more from that than from threads
    inside one.

    A context manager. Workers are spawned, not forked, because a fork of a process whose OpenMP
    threads are running can hang.
    """

    def __init__(self, evaluate: Evaluate, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_install, initargs=(evaluate,)
        )

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Raises EnvironmentProblem when a worker dies."""
        try:
            waiting = {self._pool.submit(_evaluate, *job): index for index, job in enumerate(jobs)}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool:
            raise EnvironmentProblem(
                "a search worker died (killed, or out of memory); the trials so far are kept",
                hint="type the same command again, with --set search.workers=1 if memory is short",
            ) from None


_installed: Evaluate | None = None


def _install(evaluate: Evaluate) -> None:
    global _installed
    torch.set_num_threads(1)
    _installed = evaluate


def _evaluate(counts: Counts, bars: Bars) -> Outcome:
    assert _installed is not None
    return _installed(counts, bars)

"""Where candidates are evaluated: here, or in worker processes; a cluster engine would be a third.

An executor turns jobs into outcomes, in any order, and each outcome depends on its job alone.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Protocol

import torch

from pipeline.channels.counts import Counts
from pipeline.errors import EnvironmentProblem, Hint, Set
from pipeline.runtime.orphan import EndsWithParent, begin
from stages.search.evaluation.halving import Thresholds
from stages.search.evaluation.trial import Outcome

Job = tuple[Counts, Thresholds]
Evaluate = Callable[[Counts, Thresholds], Outcome]


class Executor(Protocol):
    """Evaluates (counts, thresholds) jobs."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Yield (index of the job, outcome) as they finish."""
        ...


class InProcess:
    """One after the other, in this process."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        for index, (counts, thresholds) in enumerate(jobs):
            yield index, self.evaluate(counts, thresholds)


class Pool:
    """Worker processes of one thread each; a context manager.

    Small convolutions gain more from several processes than from several threads. Workers are
    spawned, not forked, because a fork of a process whose OpenMP threads are running can hang.
    """

    def __init__(self, evaluate: Evaluate, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        # of a parent that was killed the queue says nothing: workers hold both of its ends
        start = EndsWithParent(), _install, evaluate
        self._pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=begin, initargs=start
        )

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)  # a stop does not wait for the queue

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """As `Executor.run`.

        Raises:
            EnvironmentProblem: a worker died.
        """
        try:
            waiting = {self._pool.submit(_evaluate, *job): index for index, job in enumerate(jobs)}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool:
            raise EnvironmentProblem(
                "a search worker died (killed, or out of memory); the trials so far are kept",
                hint=Hint(
                    "type the same command again, with ",
                    Set("search.workers", 1),
                    " if memory is short",
                ),
            ) from None


_installed: Evaluate | None = None


def _install(evaluate: Evaluate) -> None:
    global _installed
    # Ctrl-C reaches the whole process group; the parent ends the search between two trials
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _installed = evaluate


def _evaluate(counts: Counts, thresholds: Thresholds) -> Outcome:
    assert _installed is not None
    return _installed(counts, thresholds)

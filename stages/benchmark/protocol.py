"""The measuring loop: one process a file, ABBA rounds, several launches.

Every launch starts a fresh process for each file, the first of which is what the others are
compared with, and one more for the first file again: the control. A round visits them there and
back, and the next round starts with another one; for A against B, with C the control:

    launch 1   A B C C B A | C A B B A C | B C A A C B | ...
    launch 2   ...

However many files there are, they share the first file's process, the control and the rounds: every
pair of them has been timed side by side, so any two can be compared.
One visit is a slot: the first call is thrown away, then calls are timed for a few milliseconds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.runtime.feed import Given
from pipeline.runtime.providers import find_provider
from pipeline.runtime.worker import Worker
from stages.benchmark.fingerprint import cores, resolve_threads
from stages.benchmark.setting import Setting

_CHEAP_NS = 20e6

_Item = TypeVar("_Item")
ProgressCallback = Callable[[int, int], None]
"""Called with (parts done, parts in all)."""


@dataclass(frozen=True)
class Protocol:
    """How long.

    Attributes:
        min_seconds: least measured time per variant and setting.
        min_runs: least timed calls per variant and setting.
        launches: fresh processes per variant; at least 2, for the interval needs their spread.
        slot_seconds: one visit of a round. Short, so that a burst of noise hits all variants alike.
        min_rounds: least rounds in a launch; at least 2, for they are resampled.
        limit_seconds: wall time after which a setting stops early; fewer runs, wider interval.
        warm_limit: most seconds that one variant is warmed up for.
        further: the share of `min_seconds` and `min_runs` that settings after the first get.
    """

    min_seconds: float = 3.0
    min_runs: int = 100
    launches: int = 4
    slot_seconds: float = 0.01
    min_rounds: int = 5
    limit_seconds: float = 120.0
    warm_limit: float = 1.0
    further: float = 1.0

    def __post_init__(self) -> None:
        for name in ("launches", "min_rounds"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2")

    def at(self, index: int) -> Protocol:
        """For the setting of this number."""
        share = self.further if index else 1.0
        runs = math.ceil(share * self.min_runs)
        return replace(self, min_seconds=share * self.min_seconds, min_runs=runs)


@dataclass
class Samples:
    """What was timed of one setting. Processes are numbered: a file each, the control last.

    Attributes:
        calls: nanoseconds of every call, by process.
        rounds: for every launch its rounds: the logarithm of the median time, by process.
        warm_stable: whether every warm-up reached a steady median.
        cores: those that the children were pinned to.
        seconds: wall time of the rounds.
        copies_ms: median milliseconds of the copies to and from a device, by process.
        memory_bytes: how much opening a file and the first call added to the peak of its process,
            by process; of the first setting, and None with a static batch: a process that has
            opened a file before tells nothing.
    """

    calls: list[list[int]]
    rounds: list[list[list[float]]] = field(default_factory=list)
    warm_stable: bool = True
    cores: list[int] = field(default_factory=list)
    threads: int = 1
    seconds: float = 0.0
    copies_ms: list[float] | None = None
    memory_bytes: list[int] | None = None

    def ratios(self, a: int, b: int) -> list[list[float]]:
        """log(time of A) - log(time of B): a list a launch, a number a round."""
        return [[row[a] - row[b] for row in launch] for launch in self.rounds]

    def memory(self, number: int) -> int | None:
        """Bytes that one file takes, where that is known."""
        return self.memory_bytes[number] if self.memory_bytes else None

    def control(self) -> list[list[float]]:
        """The same of the first file against another process of it."""
        return self.ratios(0, -1)


def measure(
    files: Sequence[Path | bytes],
    settings: Sequence[Setting],
    protocol: Protocol,
    *,
    input_shape: Given = None,
    flush_denormals: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Samples]:
    """Time all files, and the first again, at every setting, which share a launch's processes.

    Args:
        files: paths, or serialised graphs.
        input_shape: sizes after the batch, for files that leave them open.
        flush_denormals: let the runtime treat denormal numbers as zero.
        progress: called after every setting of every launch; what it raises ends the measurement.
    Raises:
        ArtifactError: a file cannot be opened, or kills the runtime.
        EnvironmentProblem: this onnxruntime lacks the provider, or ran out of memory.
    """
    served = (*files, files[0])
    found = [Samples([[] for _ in served]) for _ in settings]
    total = protocol.launches * len(settings)
    for launch in range(protocol.launches):
        with ExitStack() as stack:
            workers = tuple(stack.enter_context(Worker()) for _ in served)
            for index, (setting, samples) in enumerate(zip(settings, found, strict=True)):
                _prepare(workers, served, setting, samples, input_shape, flush_denormals)
                if launch == index == 0 and not setting.static_batch:
                    samples.memory_bytes = [worker.call()["memory_bytes"] for worker in workers]
                _warm(workers, launch, protocol, samples)
                _rounds(workers, launch, protocol.at(index), samples)
                if launch == protocol.launches - 1:
                    samples.copies_ms = _copies(workers, setting)
                if progress:
                    progress(launch * len(settings) + index + 1, total)
            for worker in workers:  # all at once, not one after the other
                worker.hang_up()
    return found


def open_at(
    worker: Worker, file: Path | bytes, setting: Setting, shape: Given = None, **options: Any
) -> dict[str, Any]:
    """Open a file at a setting, pinned to its cores, and feed it.

    Args:
        shape: sizes after the batch, for files that leave them open.
        options: further ones of `Worker.open`.
    Returns:
        what `Worker.open` does; `cores` that the child is pinned to; `sizes` of the feed by input.
    Raises:
        UsageError: a size stays open, or the file takes another number of images a call.
        ArtifactError: the file cannot be opened, or kills the runtime.
        EnvironmentProblem: this onnxruntime lacks the provider, or ran out of memory.
    """
    provider, threads = find_provider(setting.provider), resolve_threads(setting.threads)
    pinned = worker.pin(cores(threads))  # before `open`: its threads inherit it
    options |= {"provider": provider.name, "threads": threads}
    if setting.static_batch:  # by its name, which only an open file tells
        opened = worker.open(file, **{**options, "profile": False})
        options["static_dims"] = _batch_fixed(worker, opened, setting)
    opened = worker.open(file, **options)
    sizes = worker.feed(batch=setting.batch, shape=shape, device=provider.device)
    return {**opened, "cores": pinned, "sizes": sizes}


def _batch_fixed(worker: Worker, opened: dict[str, Any], setting: Setting) -> dict[str, int]:
    """The batch by the name that the file gives it; nothing where the file fixes it itself."""
    first = next(iter(opened["inputs"][0]["shape"]), 1) if opened["inputs"] else 1
    if first is None:
        raise UsageError(
            f"{worker.subject}: its batch is open and has no name by which to fix it",
            hint="leave --static out",
        )
    return {first: setting.batch} if isinstance(first, str) else {}


def _prepare(
    workers: Sequence[Worker],
    files: Sequence[Path | bytes],
    setting: Setting,
    samples: Samples,
    input_shape: Given,
    flush_denormals: bool,
) -> None:
    """Open every file in its process. All are pinned to the same cores: they run in turn."""
    samples.threads = resolve_threads(setting.threads)
    for worker, file in zip(workers, files, strict=True):
        opened = open_at(worker, file, setting, input_shape, flush_denormals=flush_denormals)
        samples.cores = opened["cores"]


def _warm(workers: Sequence[Worker], launch: int, protocol: Protocol, samples: Samples) -> None:
    for worker in _rotated(workers, launch):  # none is the last, and warmest, in every launch
        report = worker.warm(window=0.03, limit=protocol.warm_limit)
        samples.warm_stable = samples.warm_stable and bool(report["stable"])


def _copies(workers: Sequence[Worker], setting: Setting) -> list[float] | None:
    """Milliseconds of the copies, by process; None where the provider works on host memory."""
    device = find_provider(setting.provider).device
    if device is None:
        return None
    return [1e3 * worker.copies(device) for worker in workers]


def _rounds(workers: Sequence[Worker], launch: int, protocol: Protocol, samples: Samples) -> None:
    """The rounds of one launch, until both the time and the number of calls are reached."""
    begin = time.monotonic()
    rounds: list[list[float]] = []
    spent, runs, least = [0] * len(workers), [0] * len(workers), [1] * len(workers)
    while True:
        logs: list[list[float]] = [[] for _ in workers]
        for which in _there_and_back(len(workers), launch + len(rounds)):
            times = workers[which].slot(seconds=protocol.slot_seconds, least=least[which])
            # in logarithms a ratio and its inverse weigh alike
            logs[which].append(math.log(statistics.median(times)))
            samples.calls[which].extend(times)
            spent[which] += sum(times)
            runs[which] += len(times)
        rounds.append([sum(values) / 2 for values in logs])
        # a median of three where cheap
        least = [3 if math.exp(time_ns) < _CHEAP_NS else 1 for time_ns in rounds[-1]]
        if _enough(protocol, len(rounds), spent, runs) or _late(protocol, len(rounds), begin):
            break
    samples.rounds.append(rounds)
    samples.seconds += time.monotonic() - begin


def _there_and_back(count: int, round_: int) -> list[int]:
    """The order of one round. All lead equally often: who comes first finds another's data in
    the caches.
    """
    order = _rotated(range(count), -round_)
    return order + order[::-1]


def _rotated(items: Sequence[_Item], by: int) -> list[_Item]:
    by %= len(items)
    return [*items[by:], *items[:by]]


def _enough(protocol: Protocol, rounds: int, spent: Sequence[int], runs: Sequence[int]) -> bool:
    """Whether a launch has its share of the rounds, of the time (`spent`, ns) and of the calls."""
    return (
        rounds >= protocol.min_rounds
        and min(spent) >= protocol.min_seconds / protocol.launches * 1e9
        and min(runs) >= protocol.min_runs / protocol.launches
    )


def _late(protocol: Protocol, rounds: int, begin: float) -> bool:
    late = time.monotonic() - begin > protocol.limit_seconds / protocol.launches
    return rounds >= 2 and late  # fewer rounds could not be resampled

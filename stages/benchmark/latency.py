"""Candidates timed by the hundred: one child that lives on, a new one when a candidate kills it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RlpError
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker
from stages.benchmark.fingerprint import cores, resolve_threads

# Many short rounds: a processor's speed changes within milliseconds, and in a short round it is the
# same for both sides. A network too slow for that gets fewer. tests/bench/timing_statistics.py
_ROUNDS = (4, 16)

Calls = NDArray[np.float64]


@dataclass(frozen=True)
class RelativeLatency:
    """One candidate against a reference, such as the original, in alternating slots.

    Attributes:
        seconds, reference_seconds: medians of a call.
        fraction: candidate ÷ reference, the median over the rounds of the ratio of their fastest
            calls: other work slows most calls, and those of a larger network more.
    """

    seconds: float
    reference_seconds: float
    fraction: float


class LatencyWorker:
    """Times ONNX graphs given as bytes.

        with LatencyWorker(reference_bytes) as worker:
            worker.time(candidate)              # median seconds of a call
            worker.relative(candidate).fraction # of the reference; other work disturbs it less

    A candidate that kills its child raises ArtifactError; the next call starts a new child.

    Args:
        reference: what `relative` compares with; None where only `time` is wanted.
        provider: execution provider, short or long name.
        batch, threads: images a call and intra-op threads where a call does not say otherwise.
        input_shape: sizes after the batch, for graphs that leave them open.
    """

    def __init__(
        self,
        reference: bytes | Path | None = None,
        *,
        provider: str = CPU,
        batch: int = 1,
        threads: int = 1,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.provider = find_provider(provider)
        self.batch, self.threads, self.input_shape = batch, threads, input_shape
        self._reference = reference
        self._workers: dict[str, Worker] = {}
        # the reference is opened once for many candidates: the threads and the batch it is open at
        self._reference_at: tuple[int, int] | None = None

    def __enter__(self) -> LatencyWorker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def time(
        self,
        model: bytes | Path,
        *,
        batch: int | None = None,
        threads: int | None = None,
        min_time: float = 0.1,
    ) -> float:
        """Median seconds of a call, over at least `min_time` seconds and 5 calls, after a warm-up.

        Raises:
            ArtifactError: the graph cannot be opened, or kills the runtime.
            EnvironmentProblem: this onnxruntime lacks the provider, or ran out of memory.
        """
        worker = self._opened("candidate", model, batch, threads)
        return statistics.median(worker.slot(seconds=min_time, least=5)) / 1e9

    def relative(
        self,
        model: bytes | Path,
        *,
        batch: int | None = None,
        threads: int | None = None,
        min_time: float = 0.1,
    ) -> RelativeLatency:
        """Both in ABBA slots, about `min_time` seconds each; raises as `time` does."""
        if self._reference is None:
            raise ValueError("LatencyWorker was made without a reference")
        sides = {
            "reference": self._opened("reference", self._reference, batch, threads),
            "candidate": self._opened("candidate", model, batch, threads),
        }
        rounds = _alternating(sides, min_time)
        fastest = np.array([[calls.min() for calls in one] for one in rounds])
        candidate, reference = (np.concatenate(side) for side in zip(*rounds, strict=True))
        return RelativeLatency(
            float(np.median(candidate)),
            float(np.median(reference)),
            float(np.median(fastest[:, 0] / fastest[:, 1])),
        )

    def _opened(
        self, side: str, model: bytes | Path, batch: int | None, threads: int | None
    ) -> Worker:
        """The child of `side` with `model` open, fed and warm."""
        count = resolve_threads(self.threads if threads is None else threads)
        size = self.batch if batch is None else batch
        worker = self._workers.get(side)
        if side == "reference" and worker and worker.alive and self._reference_at == (count, size):
            return worker
        worker = self._living(side)
        try:
            worker.pin(cores(count))
            label = f"a {side} graph in memory"
            worker.open(model, provider=self.provider.name, threads=count, label=label)
            worker.feed(batch=size, shape=self.input_shape, device=self.provider.device)
            worker.warm(window=0.01, tolerance=0.1, limit=0.3)  # short: hundreds of candidates
        except RlpError:
            worker.close()
            del self._workers[side]
            raise
        if side == "reference":
            self._reference_at = (count, size)
        return worker

    def _living(self, side: str) -> Worker:
        worker = self._workers.get(side)
        if worker is not None and worker.alive:
            return worker
        if worker is not None:
            worker.close()
        self._workers[side] = Worker()
        return self._workers[side]


def _alternating(sides: dict[str, Worker], min_time: float) -> list[tuple[Calls, Calls]]:
    """Seconds of every call of the candidate and of the reference, a pair an ABBA round."""
    order = ("reference", "candidate", "candidate", "reference")
    least, most = _ROUNDS
    rounds: list[tuple[Calls, Calls]] = []
    end = time.monotonic() + 2 * min_time
    while len(rounds) < least or (len(rounds) < most and time.monotonic() < end):
        calls: dict[str, list[int]] = {"candidate": [], "reference": []}
        # each leads half of the rounds: the other one evicts caches
        for side in order if len(rounds) % 2 == 0 else order[2:] + order[:2]:
            calls[side] += sides[side].slot(seconds=min_time / (2 * most), least=2)
        rounds.append((np.array(calls["candidate"]) / 1e9, np.array(calls["reference"]) / 1e9))
    return rounds

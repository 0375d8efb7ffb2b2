"""Candidates timed by the hundred: one child that lives on, another one when a candidate kills it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import RlpError
from pipeline.runtime import CPU, Worker, find_provider
from stages.benchmark.fingerprint import cores, resolve_threads


@dataclass(frozen=True)
class Relative:
    """One candidate against the base in alternating slots: medians in seconds, and candidate ÷ base."""

    seconds: float
    base_seconds: float
    fraction: float


class LatencyWorker:
    """Times ONNX graphs given as bytes.

        with LatencyWorker(base_bytes) as worker:
            worker.time(candidate)              # median seconds of a call
            worker.relative(candidate).fraction # candidate ÷ base, which a busy machine disturbs far less

    A candidate that kills its child raises ArtifactError; the next call starts a new child.
    """

    def __init__(
        self,
        base: bytes | Path | None = None,
        *,
        provider: str = CPU,
        batch: int = 1,
        threads: int = 1,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.provider = find_provider(provider)
        self.batch, self.threads, self.input_shape = batch, threads, input_shape
        self._base = base
        self._workers: dict[str, Worker] = {}
        self._base_at: tuple[int, int] | None = None  # threads and batch that the base's session is open at

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
        self, model: bytes | Path, *, batch: int | None = None, threads: int | None = None, min_time: float = 0.1
    ) -> float:
        """Median seconds of a call, over at least `min_time` seconds and 5 calls, after a warm-up.

        Raises:
            ArtifactError: the graph cannot be opened, or kills the runtime.
        """
        worker = self._opened("candidate", model, batch, threads)
        return statistics.median(worker.slot(seconds=min_time, least=5)) / 1e9

    def relative(
        self, model: bytes | Path, *, batch: int | None = None, threads: int | None = None, min_time: float = 0.1
    ) -> Relative:
        """Candidate and base in ABBA slots, `min_time` seconds each at least. Raises as `time` does."""
        if self._base is None:
            raise ValueError("LatencyWorker was made without a base")
        sides = {
            "base": self._opened("base", self._base, batch, threads),
            "candidate": self._opened("candidate", model, batch, threads),
        }
        rounds = 4
        medians: dict[str, list[float]] = {"base": [], "candidate": []}
        logs = []
        for turn in range(rounds):
            order = ("base", "candidate", "candidate", "base")
            found: dict[str, list[float]] = {"base": [], "candidate": []}
            for side in order if turn % 2 == 0 else order[2:] + order[:2]:
                nanoseconds = sides[side].slot(seconds=min_time / (2 * rounds), least=2)
                found[side].append(statistics.median(nanoseconds) / 1e9)
            logs.append(sum(math.log(value) for value in found["candidate"]) / 2)
            logs[-1] -= sum(math.log(value) for value in found["base"]) / 2
            for side, values in found.items():
                medians[side] += values
        return Relative(
            statistics.median(medians["candidate"]),
            statistics.median(medians["base"]),
            math.exp(statistics.median(logs)),
        )

    def _opened(self, side: str, model: bytes | Path, batch: int | None, threads: int | None) -> Worker:
        count = resolve_threads(self.threads if threads is None else threads)
        size = self.batch if batch is None else batch
        worker = self._workers.get(side)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.close()
            worker = self._workers[side] = Worker()
        elif side == "base" and self._base_at == (count, size):
            return worker
        try:
            worker.pin(cores(count))
            worker.open(model, provider=self.provider.name, threads=count, label=f"a {side} graph in memory")
            worker.feed(batch=size, shape=self.input_shape, device=self.provider.device)
            worker.warm(window=0.01, tolerance=0.1, limit=0.3)
        except RlpError:
            worker.close()
            del self._workers[side]
            raise
        if side == "base":
            self._base_at = (count, size)
        return worker

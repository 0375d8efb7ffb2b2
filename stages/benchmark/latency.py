"""Candidates timed by the hundred: one child that lives on, another one when a candidate kills
it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import RlpError
from pipeline.runtime import CPU, Worker, find_provider
from stages.benchmark.fingerprint import cores, resolve_threads

# quantile of call times: other work slows most calls, and larger networks more than smaller ones
UNDISTURBED = 0.02


@dataclass(frozen=True)
class Relative:
    """One candidate against the base in alternating slots.

    Attributes:
        seconds, base_seconds: medians.
        fraction: candidate ÷ base by their undisturbed calls, the 2 % quantile of each.
    """

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
        self._base_at: tuple[int, int] | None = (
            None  # threads and batch that the base's session is open at
        )

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
    ) -> Relative:
        """Candidate and base in ABBA slots, `min_time` seconds each at least. Raises as `time`
        does.
        """
        if self._base is None:
            raise ValueError("LatencyWorker was made without a base")
        sides = {
            "base": self._opened("base", self._base, batch, threads),
            "candidate": self._opened("candidate", model, batch, threads),
        }
        rounds = 4
        calls: dict[str, list[int]] = {"base": [], "candidate": []}
        for turn in range(rounds):
            order = ("base", "candidate", "candidate", "base")
            for side in order if turn % 2 == 0 else order[2:] + order[:2]:
                calls[side] += sides[side].slot(seconds=min_time / (2 * rounds), least=2)
        base, candidate = (np.array(calls[side]) / 1e9 for side in ("base", "candidate"))
        least = [float(np.quantile(times, UNDISTURBED)) for times in (candidate, base)]
        return Relative(float(np.median(candidate)), float(np.median(base)), least[0] / least[1])

    def _opened(
        self, side: str, model: bytes | Path, batch: int | None, threads: int | None
    ) -> Worker:
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
            worker.open(
                model, provider=self.provider.name, threads=count, label=f"a {side} graph in memory"
            )
            worker.feed(batch=size, shape=self.input_shape, device=self.provider.device)
            worker.warm(window=0.01, tolerance=0.1, limit=0.3)
        except RlpError:
            worker.close()
            del self._workers[side]
            raise
        if side == "base":
            self._base_at = (count, size)
        return worker

"""Measured latency of candidates: the base's ONNX graph is exported once, sliced per candidate,
and timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stages.benchmark.latency import LatencyWorker
from stages.export import OnnxSlicer, export_proto
from stages.search.budget import Projector
from stages.search.evaluate import Ranking
from stages.search.space import Counts, Space
from stages.search.strategies.base import Key
from stages.trace import ChannelGraph

CONFIRMING = 5  # times as long a timing decides about a finalist
LEAST_SHARE, MOST_SHARE = (
    0.15,
    0.95,
)  # of the base's MACs, between which candidates for the table are drawn


@dataclass(frozen=True)
class Measurement:
    """One candidate against the base: fraction = candidate / base by undisturbed calls; medians
    in seconds.
    """

    fraction: float
    seconds: float
    base_seconds: float
    confirmed: bool = False


@dataclass
class Stopwatch:
    """Times candidates, each once. A context manager; `close` ends the worker processes.

    Args:
        example: (1, C, H, W) input to export with.
        known: measurements of an interrupted search.
        on_measure: called for every new measurement (the journal).
    """

    model: nn.Module
    graph: ChannelGraph
    ranking: Ranking
    example: torch.Tensor
    provider: str = "CPUExecutionProvider"
    batch: int = 1
    threads: int = 1
    min_seconds: float = 0.1
    known: dict[Key, Measurement] = field(default_factory=dict)
    on_measure: Callable[[Key, Measurement], None] = lambda key, measurement: None
    _slicer: OnnxSlicer | None = None
    _worker: LatencyWorker | None = None

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def measure(self, counts: Counts) -> Measurement:
        """Latency of one candidate; a repeated one is answered from memory."""
        key = tuple(counts.tolist())
        if key not in self.known:
            self.known[key] = self._time(counts, self.min_seconds)
            self.on_measure(key, self.known[key])
        return self.known[key]

    def confirm(self, counts: Counts) -> Measurement:
        """Time a candidate again, for longer; the worse of both times is kept.

        Of many noisy timings those that meet a limit are flattered, on a busy machine by a lot.
        """
        key, first = tuple(counts.tolist()), self.measure(counts)
        if not first.confirmed:
            again = self._time(counts, CONFIRMING * self.min_seconds)
            self.known[key] = replace(
                max(first, again, key=lambda one: one.fraction), confirmed=True
            )
            self.on_measure(key, self.known[key])
        return self.known[key]

    def sliced(self, keep: Mapping[str, tuple[int, ...]]) -> bytes:
        """The candidate's ONNX graph. Raises Refused when the base's graph cannot be sliced."""
        if self._slicer is None:
            self._slicer = OnnxSlicer(export_proto(self.model, self.example), self.graph)
        return self._slicer.slice_bytes(keep)

    def _time(self, counts: Counts, seconds: float) -> Measurement:
        found = self._open().relative(self.sliced(self.ranking.keep(counts)), min_time=seconds)
        return Measurement(found.fraction, found.seconds, found.base_seconds)

    def _open(self) -> LatencyWorker:
        if self._worker is None:
            base = self.sliced({})
            self._worker = LatencyWorker(
                base, provider=self.provider, batch=self.batch, threads=self.threads
            )
        return self._worker


def spread_out(space: Space, projector: Projector, count: int, seed: int) -> NDArray[np.int64]:
    """(count, G) candidates of all sizes and shapes to fit a latency table to.

    Args:
        projector: in MACs; its limit is replaced by shares drawn evenly between 0.15 and 0.95 of
            the base.
    """
    rng = np.random.default_rng(seed)
    base, least = projector.cost.of(space.sizes), projector.cost.of(space.floors)
    shares = np.linspace(max(LEAST_SHARE, least / base), MOST_SHARE, count)[rng.permutation(count)]
    rows = []
    for share in shares:
        at = Projector(space, projector.cost, max(share * base, least))
        rows.append(at.logits(rng.standard_normal(len(space))))
    return np.array(rows, dtype=np.int64)

"""Measured latency of candidates: slices of the uncut network's ONNX graph, timed against it.

The graph is exported once, quantised if candidates are to be, sliced per candidate
(`stages.export.OnnxSlicer`) and timed in alternating slots (`stages.benchmark.LatencyWorker`), so
that a busy machine disturbs both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from pipeline.channels.counts import Counts
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.rebuild import rebuild
from pipeline.config.search import SearchConfig
from stages.benchmark.latency import LatencyWorker
from stages.export.exporter import export_proto
from stages.export.slicing import OnnxSlicer
from stages.quantize.schemes import Scheme
from stages.search.latency.measurement import Measurement, StartLatency
from stages.search.latency.quantized import QuantizedCandidates
from stages.search.space.candidate import CountsKey, key_of
from stages.search.space.ranking import Ranking

REMEASURED = 5  # times as long a timing decides about a finalist
STARTS = 3  # timings of the network that a search starts from; odd, for a middle one
# least measured time of one candidate: what INT8 saves is less, and drowns sooner in noise
_SECONDS = {"fp32": 0.1, "int8": 0.3}


class TimingSetting(NamedTuple):
    """What is timed: execution provider, images per inference, intra-op threads (0: all cores)."""

    provider: str = "CPUExecutionProvider"
    batch: int = 1
    threads: int = 1

    @classmethod
    def of(cls, settings: SearchConfig) -> TimingSetting:
        return cls(settings.latency_provider, settings.latency_batch, settings.latency_threads)


class CandidateTimer:
    """Times candidates, each once. A context manager; its end ends the worker processes.

    Args:
        model, graph: the uncut network.
        example: (N, C, H, W) input to export with.
        known: measurements of an interrupted search.
        on_measure: called for every new measurement (the journal).
        seconds: least measured time of one candidate; None: as long as its precision needs.
        scheme: how candidates and the uncut network are quantised; None: they are not.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        ranking: Ranking,
        example: torch.Tensor,
        setting: TimingSetting,
        *,
        known: Mapping[CountsKey, Measurement] | None = None,
        on_measure: Callable[[CountsKey, Measurement], None] = lambda key, measurement: None,
        seconds: float | None = None,
        scheme: Scheme | None = None,
    ) -> None:
        self.scheme = scheme
        self.model, self.graph, self.ranking, self.example = model, graph, ranking, example
        self.setting, self.on_measure = setting, on_measure
        self.seconds = seconds or _SECONDS[self.precision]
        self.known: dict[CountsKey, Measurement] = dict(known or {})
        self._slicer: OnnxSlicer | QuantizedCandidates | None = None
        self._worker: LatencyWorker | None = None

    def __enter__(self) -> CandidateTimer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes; the next measurement starts new ones."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        if isinstance(self._slicer, QuantizedCandidates):
            self._slicer.close()

    @property
    def precision(self) -> str:
        """Of what is timed: "fp32" or "int8"."""
        return "fp32" if self.scheme is None else "int8"

    @property
    def unsliced(self) -> str:
        """Why quantised candidates are not slices of the quantised network; "" where they are."""
        return self._slicer.reason if isinstance(self._slicer, QuantizedCandidates) else ""

    def measure(self, counts: Counts) -> Measurement:
        """Latency of one candidate, counts (G,); a repeated one is answered from memory."""
        key = key_of(counts)
        if key not in self.known:
            self._keep(key, self._time(counts, self.seconds))
        return self.known[key]

    def remeasure(self, counts: Counts) -> Measurement:
        """Time a candidate again, once and for longer; the worse of both times is kept.

        Of many noisy timings those that meet a limit are flattered, on a busy machine by a lot.
        """
        first = self.measure(counts)
        if first.remeasured:
            return first
        again = self._time(counts, REMEASURED * self.seconds)
        worse = max(first, again, key=lambda one: one.fraction)
        return self._keep(key_of(counts), replace(worse, remeasured=True))

    def sliced(self, keep: Mapping[str, tuple[int, ...]]) -> bytes:
        """The ONNX graph of a candidate; of the uncut network for `{}`.

        Raises:
            Refused: the exported graph cannot be sliced.
            ArtifactError: onnxruntime cannot quantise it.
        """
        if self._slicer is None:
            model = rebuild(self.model, {}, ()).cpu()  # the search goes on where it is
            proto = export_proto(model, self.example.cpu())
            if self.scheme is None:
                self._slicer = OnnxSlicer(proto, self.graph)
            else:
                self._slicer = QuantizedCandidates(proto, self.graph, self.scheme)
        return self._slicer.slice_bytes(keep)

    def _keep(self, key: CountsKey, measurement: Measurement) -> Measurement:
        self.known[key] = measurement
        self.on_measure(key, measurement)
        return measurement

    def _time(self, counts: Counts, seconds: float) -> Measurement:
        if self._worker is None:
            self._worker = LatencyWorker(self.sliced({}), **self.setting._asdict())
        found = self._worker.relative(self.sliced(self.ranking.keep(counts)), min_time=seconds)
        return Measurement(found.fraction, found.seconds, found.reference_seconds)


def time_start(original: CandidateTimer, start: CandidateTimer) -> StartLatency:
    """Time the uncut networks of both timers against each other, longer than a candidate.

    Every budget is a share of it: the middle of several, of which the first errs by some percent.
    """
    with LatencyWorker(original.sliced({}), **original.setting._asdict()) as worker:
        model, seconds = start.sliced({}), REMEASURED * start.seconds
        runs = [worker.relative(model, min_time=seconds) for _ in range(STARTS)]
    found = sorted(runs, key=lambda run: run.fraction)[STARTS // 2]
    return StartLatency(found.fraction, found.reference_seconds)

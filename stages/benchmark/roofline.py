"""How fast this machine can multiply at all, so that "close to the limit" is a number."""

from __future__ import annotations

from pipeline.runtime.providers import CPU
from stages.benchmark.latency import LatencyWorker
from stages.benchmark.probes import conv_chain, conv_chain_macs

_SHAPES = ((64, 28, 3), (128, 14, 3), (256, 14, 1))  # channels, pixels a side, kernel
_REPEAT = 6


def measured_peak(
    *, provider: str = CPU, threads: int = 1, batch: int = 1, min_time: float = 0.1
) -> float:
    """Best rate of a few well-shaped convolutions in onnxruntime, in GMAC/s (half of GFLOP/s).

    Raises:
        EnvironmentProblem: this onnxruntime lacks the provider.
    """
    best = 0.0
    with LatencyWorker(provider=provider, threads=threads, batch=batch) as worker:
        for channels, size, kernel in _SHAPES:
            graph = conv_chain(channels, size, kernel=kernel, repeat=_REPEAT)
            seconds = worker.time(graph, min_time=min_time)
            macs = batch * conv_chain_macs(channels, size, kernel=kernel, repeat=_REPEAT)
            best = max(best, macs / seconds / 1e9)
    return best

"""Which channel multiple pays on this machine: convolutions of many widths, timed in onnxruntime.

Runtimes block channels (8 or 16 at a time on most CPUs). A width off the block either leaves the
fast layout or is padded up to it, so a network with fewer multiply-accumulates can be slower.
INT8 kernels keep channels last and block otherwise, so they are a sweep of their own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pipeline.run.variants import FP32, INT8
from pipeline.runtime.providers import CPU
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.latency import LatencyWorker
from stages.benchmark.probes import conv_chain

# multiples of 8, 16 and 32, and beside them multiples of 2 and 4 only
WIDTHS = (30, 32, 36, 40, 44, 48, 56, 60, 62, 64, 72, 76, 80, 94, 96)
MULTIPLES = (1, 2, 4, 8, 16, 32)
MIN_BLOCKS = 4  # a layer of fewer steps has no room left to choose a width
PRECISIONS = (FP32, INT8)
_KINDS = {"conv 3x3": (3, False), "conv 1x1": (1, False), "depthwise 3x3": (3, True)}
_REPEAT = 4  # equal layers in a row, so that entering and leaving the graph weigh little
_NEAR = (0.6, 1.6)  # of a width: those that it could be rounded to instead


@dataclass(frozen=True)
class WidthTime:
    """One convolution shape: median microseconds of one layer."""

    kind: str
    channels: int
    us: float


@dataclass(frozen=True)
class Alignment:
    """The sweep and what follows from it.

    Attributes:
        multiple: widths should be multiples of this on this machine.
        cost: for each multiple m, how much slower per channel the widths are that are multiples of
            m and of nothing larger in the list, against the best multiple (1.0 = as good as any).
        machine: id of the fingerprint it belongs to.
        precision: "fp32" or "int8".
    """

    multiple: int
    cost: dict[int, float]
    rows: tuple[WidthTime, ...]
    provider: str
    threads: int
    machine: str
    precision: str = FP32

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        cost = {str(key): value for key, value in self.cost.items()}
        return {**asdict(self), "cost": cost, "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Alignment:
        """Inverse of `to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        rows = tuple(
            WidthTime(str(row["kind"]), int(row["channels"]), float(row["us"]))
            for row in found["rows"]
        )
        multiple, cost = alignment_of(rows)
        if multiple != found["multiple"]:
            raise ValueError("the multiple is not what its own timings say")
        provider, threads = str(found["provider"]), int(found["threads"])
        precision = str(found.get("precision", FP32))
        return cls(multiple, cost, rows, provider, threads, str(found["machine"]), precision)

    def for_widths(self, widths: Sequence[int]) -> int:
        """The multiple for layers this wide: halved until the median one has 4 steps or more.

        Multiples of 16 would leave a 16-channel layer only whole; ResNet-20's 16, 32 and 64
        channels take 8.
        """
        multiple = self.multiple
        while widths and multiple > 1 and statistics.median(widths) < MIN_BLOCKS * multiple:
            multiple //= 2
        return multiple


def measure_alignment(
    *,
    precision: str = FP32,
    provider: str = CPU,
    threads: int = 1,
    size: int = 14,
    widths: Sequence[int] = WIDTHS,
    min_time: float = 0.01,
    repeats: int = 2,
    progress: Callable[[int, int], None] | None = None,
    timer: Callable[[bytes], float] | None = None,
) -> Alignment:
    """Time 3×3, 1×1 and depthwise convolutions at every width; about five seconds.

    Args:
        precision: "fp32" or "int8".
        size: height and width of the activations, in pixels.
        min_time: seconds that one graph is run for on each visit.
        repeats: visits of each width.
        progress: called with (graphs timed, all of them).
        timer: seconds of one call of a graph; None: onnxruntime in a child process.
    Raises:
        ArtifactError: the child died of a graph.
        EnvironmentProblem: this onnxruntime lacks the provider.
    """
    visits = [(kind, width) for kind in _KINDS for width in widths]
    # There and back, so that a machine that warms up or slows down favours neither end.
    order = (visits + visits[::-1]) * ((repeats + 1) // 2)
    best: dict[tuple[str, int], float] = {}
    with ExitStack() as stack:
        if timer is None:
            worker = stack.enter_context(LatencyWorker(provider=provider, threads=threads))
            timer = partial(worker.time, min_time=min_time)
        for done, (kind, width) in enumerate(order, start=1):
            us = 1e6 * timer(_graph(kind, width, size, precision)) / _REPEAT
            best[kind, width] = min(us, best.get((kind, width), us))  # other work only adds time
            if progress:
                progress(done, len(order))
    rows = tuple(WidthTime(kind, width, us) for (kind, width), us in best.items())
    multiple, cost = alignment_of(rows)
    return Alignment(multiple, cost, rows, provider, threads, fingerprint()["id"], precision)


def _graph(kind: str, width: int, size: int, precision: str) -> bytes:
    kernel, depthwise = _KINDS[kind]
    int8 = precision == INT8
    return conv_chain(width, size, kernel=kernel, depthwise=depthwise, repeat=_REPEAT, int8=int8)


def alignment_of(
    rows: Sequence[WidthTime], tolerance: float = 0.10
) -> tuple[int, dict[int, float]]:
    """The smallest multiple whose widths cost at most `tolerance` more per channel than the best.

    Returns:
        the multiple, and the cost of every multiple against the cheapest (`Alignment.cost`).
    """
    penalties: dict[int, list[float]] = {}
    for kind in {row.kind for row in rows}:
        for channels, penalty in _penalties([row for row in rows if row.kind == kind]).items():
            penalties.setdefault(_largest(channels), []).append(penalty)
    # of ratios
    typical = {m: statistics.geometric_mean(values) for m, values in sorted(penalties.items())}
    cheapest = min(typical.values())
    cost = {multiple: value / cheapest for multiple, value in typical.items()}
    # Every multiple of a good multiple must be good too: a lone cheap width is a fluke.
    good = [m for m in cost if all(cost[n] <= 1 + tolerance for n in cost if n >= m)]
    return (min(good) if good else max(cost)), cost


def _penalties(rows: Sequence[WidthTime]) -> dict[int, float]:
    """By width of one kind, its rate over the best rate near it: 1 where it pays to stop there.

    A rate is the time over what it should grow by: channels² of dense, channels of depthwise ones.
    """
    ordered = sorted(rows, key=lambda row: row.channels)
    power = 1 if ordered[0].kind.startswith("depthwise") else 2
    rate = {row.channels: row.us / row.channels**power for row in ordered}
    return {
        channels: mine
        / min(rate[w] for w in rate if _NEAR[0] * channels <= w <= _NEAR[1] * channels)
        for channels, mine in rate.items()
    }


def _largest(channels: int) -> int:
    return max(multiple for multiple in MULTIPLES if channels % multiple == 0)

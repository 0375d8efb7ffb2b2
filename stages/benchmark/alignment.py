"""Which channel multiple pays on this machine: a sweep of convolutions over widths, timed in
onnxruntime.

Runtimes block channels (8 or 16 at a time on most CPUs). A width off the block either leaves the
fast layout or is padded up to it, so a network with fewer multiply-accumulates can be slower.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pipeline.runtime import CPU
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.latency import LatencyWorker
from stages.benchmark.probes import conv_chain

WIDTHS = (30, 32, 36, 40, 44, 48, 56, 60, 62, 64, 72, 76, 80, 94, 96)
MULTIPLES = (1, 2, 4, 8, 16, 32)
MIN_BLOCKS = 4  # a layer of fewer steps has no room left to choose a width
_KINDS = {"conv 3x3": (3, False), "conv 1x1": (1, False), "depthwise 3x3": (3, True)}


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
        multiple: widths should be multiples of this on this machine. cost: for each multiple m, how
        much slower per channel the widths are that are multiples of m and
            of nothing larger in the list, against the best multiple (1.0 = as good as any).
        machine: id of the fingerprint it belongs to.
    """

    multiple: int
    cost: dict[int, float]
    rows: tuple[WidthTime, ...]
    provider: str
    threads: int
    machine: str

    def to_dict(self) -> dict[str, Any]:
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
        return cls(
            multiple,
            cost,
            rows,
            str(found["provider"]),
            int(found["threads"]),
            str(found["machine"]),
        )

    def for_widths(self, widths: Sequence[int]) -> int:
        """The multiple for a network with layers this wide: halved until the median layer has 4
        steps or more.

        Multiples of 16 would leave a 16-channel layer only whole; ResNet-20's 16, 32 and 64
        channels take 8.
        """
        multiple = self.multiple
        while widths and multiple > 1 and statistics.median(widths) < MIN_BLOCKS * multiple:
            multiple //= 2
        return multiple


def measure_alignment(
    *,
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

    Widths are visited there and back, and the least of the medians counts: other work on the
    machine only ever adds time.

    Args:
        timer: seconds of one call of a graph; None: onnxruntime in a child process.
    """
    repeat = 4
    best: dict[tuple[str, int], float] = {}
    visits = [(kind, width) for kind in _KINDS for width in widths]
    order = (visits + visits[::-1]) * ((repeats + 1) // 2)
    with ExitStack() as stack:
        if timer is None:
            worker = stack.enter_context(LatencyWorker(provider=provider, threads=threads))
            timer = partial(worker.time, min_time=min_time)
        for done, (kind, width) in enumerate(order, start=1):
            kernel, depthwise = _KINDS[kind]
            graph = conv_chain(width, size, kernel=kernel, depthwise=depthwise, repeat=repeat)
            us = 1e6 * timer(graph) / repeat
            best[kind, width] = min(us, best.get((kind, width), us))
            if progress:
                progress(done, len(order))
    rows = tuple(WidthTime(kind, width, us) for (kind, width), us in best.items())
    multiple, cost = alignment_of(rows)
    return Alignment(multiple, cost, rows, provider, threads, fingerprint()["id"])


def alignment_of(
    rows: Sequence[WidthTime], tolerance: float = 0.10
) -> tuple[int, dict[int, float]]:
    """The smallest multiple whose widths cost at most `tolerance` more per channel than the best.

    A width's cost is its time over that of the fastest width at least as large, scaled by the
    expected growth (channels² for dense, channels for depthwise convolutions): 1 where it pays to
    stop there.
    """
    penalties: dict[int, list[float]] = {}
    for kind in {row.kind for row in rows}:
        mine = sorted((row for row in rows if row.kind == kind), key=lambda row: row.channels)
        power = 1 if kind.startswith("depthwise") else 2
        rate = {row.channels: row.us / row.channels**power for row in mine}
        for row in mine:
            near = [rate[w] for w in rate if 0.6 * row.channels <= w <= 1.6 * row.channels]
            penalties.setdefault(_largest(row.channels), []).append(rate[row.channels] / min(near))
    typical = {
        multiple: statistics.geometric_mean(values)
        for multiple, values in sorted(penalties.items())
    }
    floor = min(typical.values())
    cost = {multiple: value / floor for multiple, value in typical.items()}
    fine = [
        multiple
        for multiple in cost
        if all(cost[m] <= 1 + tolerance for m in cost if m >= multiple)
    ]
    return (min(fine) if fine else max(cost)), cost


def _largest(channels: int) -> int:
    return max(multiple for multiple in MULTIPLES if channels % multiple == 0)

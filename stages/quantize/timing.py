"""INT8 against fp32 by the clock: a look at every scheme, and an interval for the one chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stages.benchmark.intervals import percentiles, ratio_intervals, verdict
from stages.benchmark.latency import LatencyWorker
from stages.benchmark.protocol import Protocol, Setting, measure
from stages.quantize.report import Timing

_LOOK_SECONDS = 0.1  # of each side; the schemes differ by tens of percent
_QUICK_SECONDS = 0.3
_QUICK_RUNS = 40


class Looker:
    """Ratios of fp32 to one model after the other, briefly.

    Args:
        path: the fp32 file.
        shape: one image's sizes, for a file that leaves them open.
    """

    def __init__(self, path: Path, setting: Setting, shape: tuple[int, ...] | None) -> None:
        self._worker = LatencyWorker(
            path,
            provider=setting.provider,
            batch=setting.batch,
            threads=setting.threads,
            input_shape=shape,
        )

    def close(self) -> None:
        """End the children."""
        self._worker.close()

    def look(self, model: bytes) -> Timing:
        """Without an interval. Raises ArtifactError for a model that does not run."""
        return Timing(1 / self._worker.relative(model, min_time=_LOOK_SECONDS).fraction)


def time_pair(
    before: Path | bytes,
    model: bytes,
    setting: Setting,
    shape: tuple[int, ...] | None,
    protocol: Protocol,
    worth: float = 1.0,
) -> Timing:
    """The ratio of `before`, which is fp32 as a rule, to `model` with its interval, by the
    benchmark's protocol.

    Quickly first; where that shows nothing although the ratio is above `worth`, as `protocol`
    says.
    """
    quick = replace(
        protocol,
        min_seconds=min(protocol.min_seconds, _QUICK_SECONDS),
        min_runs=min(protocol.min_runs, _QUICK_RUNS),
        launches=2,
        warm_limit=_QUICK_SECONDS,
    )
    timing = _measured(before, model, setting, shape, quick)
    if timing.ratio > worth and not timing.faster:
        return _measured(before, model, setting, shape, protocol)
    return timing


def _measured(
    before: Path | bytes,
    model: bytes,
    setting: Setting,
    shape: tuple[int, ...] | None,
    protocol: Protocol,
) -> Timing:
    (samples,) = measure([before, model], [setting], protocol, input_shape=shape)
    ratio, control = ratio_intervals(samples.ratios(0, 1), samples.control())
    p50 = [percentiles(calls)["p50"] or 0.0 for calls in samples.calls[:2]]
    ci95 = (ratio.low, ratio.high)
    return Timing(ratio.value, ci95, verdict(ratio, control), (p50[0], p50[1]))

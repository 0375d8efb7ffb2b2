"""Timings that can be believed: alternating processes, an interval and a control.

`compare` times two files, `time_files` any number in the same rounds; `LatencyWorker` times
candidates by the hundred; `measure_alignment` and `cached_alignment` say which channel multiple
pays here; `explain` says why there is no gain.
"""

from __future__ import annotations

from stages.benchmark.accuracy import onnx_accuracy
from stages.benchmark.alignment import Alignment, measure_alignment
from stages.benchmark.alignment_cache import cached_alignment, known_alignment
from stages.benchmark.comparison import (
    Comparison,
    TimedFiles,
    Variant,
    compare,
    compare_settings,
    time_files,
)
from stages.benchmark.explain import Explanation, explain
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.latency import LatencyWorker, RelativeLatency
from stages.benchmark.protocol import Protocol, Setting

__all__ = [
    "Alignment",
    "Comparison",
    "Explanation",
    "LatencyWorker",
    "Protocol",
    "RelativeLatency",
    "Setting",
    "TimedFiles",
    "Variant",
    "cached_alignment",
    "compare",
    "compare_settings",
    "explain",
    "fingerprint",
    "known_alignment",
    "measure_alignment",
    "onnx_accuracy",
    "time_files",
]

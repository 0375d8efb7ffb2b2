"""Timings that can be believed: interleaved A/B in worker processes, with an interval and a
control.
"""

from __future__ import annotations

from stages.benchmark.accuracy import onnx_accuracy
from stages.benchmark.alignment import Alignment, measure_alignment
from stages.benchmark.comparison import Comparison, Variant, compare, compare_settings
from stages.benchmark.explain import Explanation, explain
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.latency import LatencyWorker, Relative
from stages.benchmark.protocol import Protocol, Setting
from stages.benchmark.target import known_alignment, target_alignment

__all__ = [
    "Alignment",
    "Comparison",
    "Explanation",
    "LatencyWorker",
    "Protocol",
    "Relative",
    "Setting",
    "Variant",
    "compare",
    "compare_settings",
    "explain",
    "fingerprint",
    "known_alignment",
    "measure_alignment",
    "onnx_accuracy",
    "target_alignment",
]

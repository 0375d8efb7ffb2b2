"""Timings that can be believed: interleaved A/B in worker processes, with an interval and a control."""

from __future__ import annotations

from stages.benchmark.comparison import Comparison, Variant, compare, compare_settings
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.protocol import Protocol, Setting

__all__ = ["Comparison", "Protocol", "Setting", "Variant", "compare", "compare_settings", "fingerprint"]

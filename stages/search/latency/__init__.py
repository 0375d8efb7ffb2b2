"""Latency of candidates in onnxruntime, in fp32 or INT8: predicted by a table, measured where it
counts.
"""

from __future__ import annotations

from stages.search.latency.alignment import SettledAlignment, settle_alignment
from stages.search.latency.calibration import (
    LEAST_SHARE,
    MOST_GONE,
    MOST_SHARE,
    Calibrator,
    StartTimer,
    calibrate,
    spread_out,
)
from stages.search.latency.fitting import BLOCKS, FOLDS, RIDGES, fit_latency
from stages.search.latency.measured_budget import AIM, CORRECTIONS, TRIES, MeasuredBudget
from stages.search.latency.measurement import Measurement, StartLatency
from stages.search.latency.precision import (
    FASTER,
    Int8Speed,
    Int8Timing,
    SettledPrecision,
    settle_precision,
)
from stages.search.latency.table import Calibration, LatencyCost
from stages.search.latency.timer import (
    REMEASURED,
    STARTS,
    CandidateTimer,
    TimingSetting,
    time_start,
)

CONSTANTS: dict[str, object] = {
    "table_blocks": list(BLOCKS),
    "table_ridges": list(RIDGES),
    "table_folds": FOLDS,
    "table_shares": [LEAST_SHARE, MOST_SHARE],
    "table_branches_gone": MOST_GONE,
    "limit_corrections": CORRECTIONS,
    "finalist_tries": TRIES,
    "finalist_aim": AIM,
    "finalist_times_longer": REMEASURED,
    "start_timings": STARTS,
    "int8_times_as_fast": FASTER,
}
"""What is no setting and yet shapes the result; kept in `search.json`."""

__all__ = [
    "CONSTANTS",
    "Calibration",
    "Calibrator",
    "CandidateTimer",
    "Int8Speed",
    "Int8Timing",
    "LatencyCost",
    "MeasuredBudget",
    "Measurement",
    "SettledAlignment",
    "SettledPrecision",
    "StartLatency",
    "StartTimer",
    "TimingSetting",
    "calibrate",
    "fit_latency",
    "settle_alignment",
    "settle_precision",
    "spread_out",
    "time_start",
]

"""Latency of candidates in onnxruntime: predicted by a table, measured where it counts.

Other tables, such as one for INT8, are another `Cost` beside `table.LatencyCost`.
"""

from __future__ import annotations

from stages.search.latency.alignment import SettledAlignment, settle_alignment
from stages.search.latency.calibration import (
    LEAST_SHARE,
    MOST_GONE,
    MOST_SHARE,
    Calibrator,
    calibrate,
    spread_out,
)
from stages.search.latency.fitting import BLOCKS, FOLDS, RIDGES, fit_latency
from stages.search.latency.measured_budget import AIM, TRIES, MeasuredBudget
from stages.search.latency.measurement import Measurement, StartLatency
from stages.search.latency.table import Calibration, LatencyCost
from stages.search.latency.timer import (
    REMEASURED,
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
    "finalist_tries": TRIES,
    "finalist_aim": AIM,
    "finalist_times_longer": REMEASURED,
}
"""What is no setting and yet shapes the result; kept in `search.json`."""

__all__ = [
    "CONSTANTS",
    "Calibration",
    "Calibrator",
    "CandidateTimer",
    "LatencyCost",
    "MeasuredBudget",
    "Measurement",
    "SettledAlignment",
    "StartLatency",
    "TimingSetting",
    "calibrate",
    "fit_latency",
    "settle_alignment",
    "spread_out",
    "time_start",
]

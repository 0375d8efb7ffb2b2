"""Plots of the report as inline SVG text: plain numbers in, a string out."""

from __future__ import annotations

from stages.report.plots.answer import Spot, accuracy_against_latency
from stages.report.plots.classes import confusion
from stages.report.plots.drawing import INK
from stages.report.plots.recovery import recovery
from stages.report.plots.search import (
    CostPanel,
    Curve,
    front,
    front_of,
    pareto,
    predicted_against_measured,
    search_curve,
)
from stages.report.plots.timing import (
    alignment,
    distributions,
    float_nodes,
    layer_times,
    speedups,
)
from stages.report.plots.widths import KeptGroup, keep_ratios

__all__ = [
    "INK",
    "CostPanel",
    "Curve",
    "KeptGroup",
    "Spot",
    "accuracy_against_latency",
    "alignment",
    "confusion",
    "distributions",
    "float_nodes",
    "front",
    "front_of",
    "keep_ratios",
    "layer_times",
    "pareto",
    "predicted_against_measured",
    "recovery",
    "search_curve",
    "speedups",
]

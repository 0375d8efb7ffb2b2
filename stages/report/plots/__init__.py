"""Plots of the report as inline SVG text: plain numbers in, a string out."""

from __future__ import annotations

from stages.report.plots.drawing import INK
from stages.report.plots.recovery import distillation_curve
from stages.report.plots.search import (
    CostPanel,
    Curve,
    front,
    front_of,
    pareto,
    predicted_against_measured,
    search_curve,
)
from stages.report.plots.timing import alignment, float_nodes, speedups
from stages.report.plots.widths import KeptGroup, keep_ratios

__all__ = [
    "INK",
    "CostPanel",
    "Curve",
    "KeptGroup",
    "alignment",
    "distillation_curve",
    "float_nodes",
    "front",
    "front_of",
    "keep_ratios",
    "pareto",
    "predicted_against_measured",
    "search_curve",
    "speedups",
]

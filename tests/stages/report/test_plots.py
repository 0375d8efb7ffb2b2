"""Plots: inline, without a clock in them, in the page's own colour."""

from __future__ import annotations

import re
from typing import Any

from report_documents import front_document, trials

from stages.report import plots
from stages.report.documents import RoundDocuments
from stages.report.plots import KeptGroup
from stages.report.views import search_figures as figures


def test_plots_are_inline_svg_and_the_same_twice() -> None:
    rows = [KeptGroup("stem", 16, 8), KeptGroup("a<b", 32, 24, (28,), {"uniform": 16})]
    first = plots.keep_ratios(rows, ["uniform"])
    assert first == plots.keep_ratios(rows, ["uniform"])
    assert first.startswith("<svg ")
    assert "a&lt;b" in first
    assert not re.search(r"(href|src)=\"http", first)
    assert "32 → 24" in first


def test_plots_take_the_colour_of_the_page(search: dict[str, Any]) -> None:
    for plot in (
        figures.keep_plot([RoundDocuments(search, {}, {})]),
        figures.search_plot([RoundDocuments(search, {}, {})]),
        figures.pareto_plot(search, trials(search)),
        figures.latency_plot(search),
        figures.front_plot(front_document(), search, {"accuracy": {"reconstructed": 0.8}}),
    ):
        assert "currentColor" in plot
        assert plots.INK not in plot
        assert "#000000" not in plot


def test_front_is_what_nothing_beats_in_cost_and_score() -> None:
    points = [(3.0, -0.1), (1.0, -0.9), (2.0, -0.95), (2.0, -0.3), (4.0, -0.1), (3.0, -0.5)]
    assert plots.front_of(points) == [(1.0, -0.9), (2.0, -0.3), (3.0, -0.1)]

"""Plots: inline, without a clock in them, in the page's own colour."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from report_documents import front_document, trials

from pipeline.run.variants import PRECISIONS
from stages.report import plots
from stages.report.documents import RoundDocuments
from stages.report.plots import KeptGroup, drawing
from stages.report.plots import search as search_plots
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


def test_every_plot_says_what_it_is_and_what_can_be_read_off_it() -> None:
    drawn = plots.recovery({"a<b": 12.0, "fitted": 90.0}, [91.0], "epoch 1", 92.0, 1.5)
    titles = re.findall(r"<title id=\"([^\"]+)\">([^<]+)</title>", drawn)
    descriptions = re.findall(r"<desc id=\"([^\"]+)\">([^<]+)</desc>", drawn)
    ((title_id, title),), ((desc_id, description),) = titles, descriptions
    assert f'aria-labelledby="{title_id} {desc_id}"' in drawn
    assert title == "Accuracy after every step of the recovery"
    assert "a&lt;b 12.00 %, fitted 90.00 %" in description
    assert "Kept: epoch 1" in description


class Axes:
    """Remembers what was drawn, and its limits."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.drawn: list[tuple[Any, ...]] = []
        self.limits = (low, high)

    def plot(self, *given: Any, **look: Any) -> None:
        self.drawn.append(given)

    def get_ylim(self) -> tuple[float, float]:
        return self.limits

    def set_ylim(self, low: float, high: float) -> None:
        self.limits = (low, high)


def test_what_lies_below_the_axis_is_marked_at_its_edge() -> None:
    axes = Axes()
    drawing.clamped(axes, [(1, 5.0), (2, -3.0), (3, 0.5)], 1.0, drawing.MID)
    assert axes.drawn == [((2, 3), (1.0, 1.0), "v")]
    drawing.clamped(axes, [(1, 5.0)], 1.0, drawing.MID)
    assert len(axes.drawn) == 1


def test_scores_below_the_axis_are_marked_in_every_figure_of_scores(
    search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: list[list[Any]] = []

    def clamped(axes: Any, pairs: Any, low: float, color: str) -> None:
        marked.append([place for place, value in pairs if value < low])

    monkeypatch.setattr(search_plots, "clamped", clamped)
    search["curve"][0]["score"] = -50.0
    figures.search_plot([RoundDocuments(search, {}, {})])
    lines = trials(search)
    lines[2]["score"] = -50.0
    figures.pareto_plot(search, lines)
    assert marked == [[1], [0.4], [pytest.approx(200e-6)]]


def test_many_candidates_are_drawn_as_a_picture_so_that_the_page_stays_small() -> None:
    count = 20_000
    scores = [-1.0 - n % 97 / 97 for n in range(count)]
    best = [max(scores[:97])] * count
    drawn = plots.search_curve(
        [plots.Curve("round 1", scores, best, [False] * count, {"uniform": -1.5})], "nats"
    )
    assert "data:image/png;base64" in drawn
    assert len(drawn) < 300_000


def test_of_a_long_name_the_end_is_drawn_and_the_whole_is_described() -> None:
    name = "features.denseblock4.denselayer16.norm1"
    drawn = plots.keep_ratios([KeptGroup(name, 16, 8)], [])
    assert ">…block4.denselayer16.norm1<" in drawn
    assert f"{name}: 16 to 8</desc>" in drawn


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    assert "a$b^$" in plots.keep_ratios([KeptGroup("a$b^$", 16, 8)], [])


def test_each_precision_has_a_marker_of_its_own() -> None:
    spot = plots.Spot("same", (0.9, 1.0, 1.1), (89.0, 90.0, 91.0))
    drawn = {
        plots.accuracy_against_latency([replace(spot, precision=precision)])
        for precision in PRECISIONS
    }
    assert len(drawn) == 3


def test_an_axis_is_not_shorter_than_the_noise() -> None:
    axes = Axes(89.9, 90.1)
    drawing.least_span(axes, 4.0)
    assert axes.limits == pytest.approx((88.0, 92.0))
    drawing.least_span(axes, 1.0)
    assert axes.limits == pytest.approx((88.0, 92.0))


def test_front_is_what_nothing_beats_in_cost_and_score() -> None:
    points = [(3.0, -0.1), (1.0, -0.9), (2.0, -0.95), (2.0, -0.3), (4.0, -0.1), (3.0, -0.5)]
    assert plots.front_of(points) == [(1.0, -0.9), (2.0, -0.3), (3.0, -0.1)]

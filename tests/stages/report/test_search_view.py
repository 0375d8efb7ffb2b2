"""The search in sentences, tables and figures."""

from __future__ import annotations

from typing import Any

import pytest
from report_documents import trials

from stages.report import plots
from stages.report.views import search as sentences
from stages.report.views import search_figures as figures


def test_pareto_plots_latency_first_where_it_was_the_budget(
    search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "pareto", lambda panels, unit: seen.extend(panels) or "svg")
    assert figures.pareto_plot(search, trials(search)) == "svg"
    latency, macs = seen
    assert (latency.label, latency.limit, macs.limit) == ("predicted latency, ms", 1.0, None)
    # the stopped one saw fewer images
    assert latency.points == [(0.4, -0.9), (0.8, -0.3), (1.0, -0.1)]
    assert latency.chosen == (1.0, -0.1)
    assert latency.controls == {"uniform": (1.0, -0.4)}
    assert macs.label == "MACs of one image, millions"


def test_table_of_strategies_marks_the_chosen_one_and_ends_with_the_plan(
    search: dict[str, Any],
) -> None:
    rows = sentences.strategy_rows(search)
    assert [(row["name"], row["mine"], row["score"]) for row in rows] == [
        ("rl", True, "-0.1000"),
        ("uniform", False, "-0.4000"),
        ("the plan", True, "-0.1200"),
    ]
    assert (rows[0]["macs"], rows[0]["params"], rows[0]["latency"]) == ("50.0%", "25.0%", "50.0%")


def test_accuracy_of_the_chosen_cut_says_what_had_been_done_to_it(search: dict[str, Any]) -> None:
    assert "Accuracy of the chosen cut before recovery: 80.00%" in sentences.search_sentence(search)
    search["best"]["distill_steps"] = 32
    assert (
        "Accuracy of the chosen cut after 32 steps of distillation: 80.00%"
        in sentences.search_sentence(search)
    )


def test_error_of_the_latency_table_is_said(search: dict[str, Any]) -> None:
    text = sentences.latency_sentence(search)
    assert "3.1% cross-validated, and 2.0% on 2 candidates timed after it was fitted" in text
    assert "predicted 49.0% of the base's latency, measured 50.0%, 50.0% allowed" in text
    del search["latency"]
    assert sentences.latency_sentence(search) == figures.latency_plot(search) == ""

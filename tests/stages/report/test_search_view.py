"""The search in sentences, tables and figures."""

from __future__ import annotations

from typing import Any

import pytest
from report_documents import front_document, setting, trials

from pipeline.config.search import Budget
from pipeline.errors import Command
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
    def said() -> str:
        return sentences.search_sentence(search)

    cut = "Accuracy of the chosen cut"
    assert f"{cut} as cut, batch norm re-estimated: 80.00% on 160 images" in said()
    search["best"]["distill_steps"] = 32
    assert f"{cut} after 32 steps of distillation: 80.00% on 160 images" in said()
    search["strategies"][0] |= {"distill_steps": 16, "reconstructed": True}
    both = "after least squares and 16 steps of distillation"
    assert sentences.strategy_rows(search)[0]["state"] == both
    assert f"{both}, each on 40 images" in figures.search_caption(search)


def test_error_of_the_latency_table_is_said(search: dict[str, Any]) -> None:
    text = sentences.latency_sentence(search)
    assert "3.1% cross-validated, and 2.0% on 2 candidates timed after it was fitted" in text
    assert "predicted 49.0% of the base's latency, measured 50.0%, 50.0% allowed" in text
    del search["latency"]
    assert sentences.latency_sentence(search) == figures.latency_plot(search) == ""


def test_the_front_fills_what_was_measured_and_marks_the_plan(
    search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "front", lambda *given: seen.extend(given) or "svg")
    reached = {"accuracy": {"original": 0.9, "cut": 0.3, "reconstructed": 0.79}}
    assert figures.front_plot(front_document(), search, reached) == "svg"
    measured, predicted, plan, label = seen
    assert [cost for cost, _ in measured] == [50.0, 100.0]
    assert predicted == [(20.0, 60.0)]
    assert plan == pytest.approx((49.0, 79.0))
    assert label.startswith("latency")


def test_the_caption_of_the_front_says_only_what_is_drawn() -> None:
    front = front_document()
    both = figures.front_caption(front)
    assert "Filled points were cut" in both
    assert "Hollow points are predicted from those" in both
    predicted = [{**point, "measured": False} for point in front["points"]]
    only = figures.front_caption({**front, "points": predicted})
    assert "Filled" not in only
    assert "Hollow points are predicted from what the candidates scored" in only


def test_a_front_of_one_point_is_no_plot(search: dict[str, Any]) -> None:
    front = front_document()
    front["points"] = front["points"][:1]
    assert figures.front_plot(front, search, {"accuracy": {"cut": 0.3}}) == ""


def within(search: dict[str, Any], asked: float, allowed: float) -> dict[str, Any]:
    search["budget"]["accuracy_drop"] = {
        "asked": asked, "allowed": allowed, "original": 0.9, "measured": [{}] * 6,
    }  # fmt: skip
    return search


def test_a_drop_of_accuracy_is_said_with_what_distillation_is_to_bring(
    search: dict[str, Any],
) -> None:
    assert sentences.drop_sentence(search) == ""
    assert "with 1 allowed before distillation" in sentences.drop_sentence(within(search, 0.5, 1.0))
    assert "distillation" not in sentences.drop_sentence(within(search, 0.5, 0.5))


def test_a_missed_drop_is_said_with_the_command_that_asks_for_less(
    search: dict[str, Any],
) -> None:
    def missed(final: float) -> str:
        return sentences.drop_missed(
            search, {"search_accuracy": {"final": final}}, Command("pipeline", "run", "my.yaml")
        )

    assert missed(0.1) == "", "no drop was asked for"
    within(search, 2.0, 4.0)
    assert missed(0.88) == ""
    assert missed(0.86).startswith("The final network loses 4.00 points on the search split")
    assert missed(0.86).endswith("rlp pipeline run my.yaml --set search.budget.accuracy_drop=1")


def test_a_latency_budget_that_the_benchmark_shows_missed_is_said_with_the_next_one(
    search: dict[str, Any],
) -> None:
    def missed(ratio: float, budget: Budget, precision: str = "fp32") -> str:
        rows = [setting("faster", ratio, 0.97 * ratio, 1.03 * ratio)]
        found = {"settings": rows, "final": {"precision": precision}}
        return sentences.latency_missed(
            search, found, budget, Command("pipeline", "run", "my.yaml")
        )

    half, in_ms = Budget(latency=0.5), Budget(latency_ms=2.0)
    assert missed(2.0, half) == missed(1.85, half) == missed(2.2, half) == ""
    assert missed(1.6, half).startswith("The final network takes 62.5% of the base's latency (60.")
    assert missed(1.6, half).endswith(
        "where 50.0% was asked for: rlp pipeline run my.yaml --set search.budget.latency=0.4"
    )
    assert missed(3.2, in_ms).endswith("--set search.budget.latency_ms=3.2")
    assert missed(1.6, half, "int8") == "", "the search timed fp32"
    assert missed(1.6, Budget(accuracy_drop=1.0)) == "", "no latency was asked for"
    search["latency"]["batch"] = 8
    assert missed(1.6, half) == "", "the search timed another batch"


def test_latency_in_int8_says_what_int8_alone_takes(search: dict[str, Any]) -> None:
    search["latency"] |= {"precision": "int8", "round_starts_at": 0.5}
    text = sentences.latency_sentence(search)
    assert "quantised candidates timed on this machine" in text
    assert "in INT8 50.0% of that" in text

"""The page and the summary: numbers are passed on unchanged, and nothing is claimed without its
interval.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from stages.report import plots, search_view, view
from stages.report.plots import KeptGroup
from stages.report.search_view import Round, search_sentence
from stages.report.summary import summarise


def side(accuracy: float, macs: int) -> dict[str, Any]:
    latency = {"p50": macs / 1000, "p90": macs / 900, "p99": None}
    return {
        "accuracy": accuracy,
        "macs": macs,
        "params": macs // 10,
        "bytes": macs // 2,
        "latency_ms": latency,
    }


def setting(verdict: str, ratio: float, low: float, high: float) -> dict[str, Any]:
    return {
        "provider": "CPUExecutionProvider",
        "batch": 1,
        "threads": 1,
        "verdict": verdict,
        "ratio": ratio,
        "ci95": [low, high],
        "aa_ci95": [0.97, 1.02],
        "a": side(0.9, 2000),
        "b": side(0.9, 1000),
    }


BENCHMARK = {
    "settings": [setting("faster", 1.9, 1.8, 2.0), setting("no difference shown", 1.1, 0.9, 1.2)],
    "data": {"label": "tiny [/a] set", "test_images": 50},
    "base": side(0.9, 2000),
    "final": side(0.893, 1000),
}
PARITY = {"final": {"top1_agreement": 1.0, "max_abs": 2e-6}}


def test_summary_has_the_contract_keys_and_the_first_setting() -> None:
    found = summarise("r", BENCHMARK, PARITY, "report/report.html", "export/model.onnx")
    assert found["speedup"]["ratio"] == 1.9
    assert found["speedup"]["ci95"] == [1.8, 2.0]
    assert found["data"] == {"name": "tiny [/a] set", "label": "tiny [/a] set", "test_images": 50}
    assert set(found["final"]) == {"accuracy", "macs", "params", "bytes", "latency_ms"}
    assert found["final"]["latency_ms"] == {"p50": 1.0, "p90": 1000 / 900}
    assert (found["schema_version"], found["onnx"]) == (1, "export/model.onnx")


@pytest.mark.parametrize(
    ("verdict", "start"),
    [
        ("faster", "1.90 times as fast"),
        ("slower", "Slower"),
        ("no difference shown", "No difference in speed shown"),
    ],
)
def test_headline_claims_what_the_verdict_says(verdict: str, start: str) -> None:
    speedup = setting(verdict, 1.9, 0.8, 2.0)
    text = view.headline(speedup, side(0.9, 2000), side(0.893, 1000))
    assert text.startswith(start)
    assert "0.70 points of test accuracy lost" in text
    assert "0.80 to 2.00" in text


def test_a_ratio_that_was_not_shown_is_not_printed_as_a_speedup() -> None:
    first, second = view.setting_rows(BENCHMARK["settings"])  # type: ignore[arg-type]
    assert first["ratio"] == "1.90×"
    assert second["ratio"] == "–"


def test_blank_where_there_were_too_few_samples() -> None:
    base = side(0.9, 2000)
    base["latency_ms"]["p90"] = None
    row = view.before_after(base, side(0.9, 1000))[-1]
    assert row == ("p90 latency, ms", "", "1.111", "")


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
        search_view.keep_plot([Round(search, {}, {})]),
        search_view.search_plot([Round(search, {}, {})]),
        search_view.pareto_plot(search, trials(search)),
        search_view.latency_plot(search),
    ):
        assert "currentColor" in plot
        assert plots.INK not in plot
        assert "#000000" not in plot


@pytest.fixture
def search() -> dict[str, Any]:
    """A search.json under a latency budget: four candidates, the third the best."""
    rows = [
        {"strategy": "rl", "trials": 4, "score": -0.1, "accuracy": 0.8, "images": 40},
        {"strategy": "uniform", "trials": 1, "score": -0.4, "accuracy": 0.6, "images": 40},
    ]
    costs = {"macs": 500, "params": 50, "latency": 0.5}
    points = zip((-0.9, -0.3, -0.1, -0.6), (-0.9, -0.3, -0.1, -0.1), strict=True)
    return {
        "strategy": "rl",
        "score_name": "divergence",
        "trials": 4,
        "base": {"macs": 1000, "params": 200, "accuracy": 0.9},
        "best": {**rows[0], **costs, "images": 160, "score": -0.12},
        "strategies": [{**row, **costs} for row in rows],
        "finalists": [{**rows[0], **costs}] * 2,
        "curve": [
            {"trial": n, "score": s, "best": b, "stopped": n == 3}
            for n, (s, b) in enumerate(points)
        ],
        "groups": [{"id": "stem", "size": 16, "kept": 10, "others": {"rl": 10, "uniform": 8}}],
        "budget": {
            "metric": "latency",
            "asked": 0.5,
            "limit": 0.5,
            "realised": {
                "macs": {"base": 1000, "pruned": 500, "fraction": 0.5},
                "params": {"base": 200, "pruned": 50, "fraction": 0.25},
                "latency": {"base": 1.0, "pruned": 0.49, "fraction": 0.49},
            },
        },
        "latency": {
            "provider": "CPUExecutionProvider",
            "batch": 1,
            "threads": 1,
            "base_ms": 2.0,
            "budget": 0.5,
            "predicted": 0.49,
            "measured": 0.5,
            "samples": 40,
            "median_error_cross_validated": 0.031,
            "median_error_fresh": 0.02,
            "fresh": [{"predicted": 0.49, "measured": 0.5}, {"predicted": 0.4, "measured": 0.41}],
        },
    }


def trials(search: dict[str, Any]) -> list[dict[str, Any]]:
    """Its trials.jsonl: the header, a timing, and the four candidates with 4, 8, 10 and 6
    channels.
    """
    head: list[dict[str, Any]] = [
        {"journal": 1},
        {"phase": "latency", "kept": [8], "fraction": 0.4},
    ]
    for point, kept in zip(search["curve"], (4, 8, 10, 6), strict=True):
        cost = {"macs": 50 * kept, "params": 5 * kept, "latency": kept / 20}
        head.append({"phase": "rl", "kept": [kept], "eligible": True, **cost, **point})
    return head


def test_front_is_what_nothing_beats_in_cost_and_score() -> None:
    points = [(3.0, -0.1), (1.0, -0.9), (2.0, -0.95), (2.0, -0.3), (4.0, -0.1), (3.0, -0.5)]
    assert plots.front_of(points) == [(1.0, -0.9), (2.0, -0.3), (3.0, -0.1)]


def test_pareto_plots_latency_first_where_it_was_the_budget(
    search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "pareto", lambda panels, unit: seen.extend(panels) or "svg")
    assert search_view.pareto_plot(search, trials(search)) == "svg"
    latency, macs = seen
    assert (latency.label, latency.limit, macs.limit) == ("predicted latency, ms", 1.0, None)
    assert latency.points == [
        (0.4, -0.9),
        (0.8, -0.3),
        (1.0, -0.1),
    ]  # the stopped one saw fewer images
    assert latency.chosen == (1.0, -0.1)
    assert latency.controls == {"uniform": (1.0, -0.4)}
    assert macs.label == "MACs of one image, millions"


def test_table_of_strategies_marks_the_chosen_one_and_ends_with_the_plan(
    search: dict[str, Any],
) -> None:
    rows = search_view.strategy_rows(search)
    assert [(row["name"], row["mine"], row["score"]) for row in rows] == [
        ("rl", True, "-0.1000"),
        ("uniform", False, "-0.4000"),
        ("the plan", True, "-0.1200"),
    ]
    assert (rows[0]["macs"], rows[0]["params"], rows[0]["latency"]) == ("50.0%", "25.0%", "50.0%")


def test_accuracy_of_the_chosen_cut_says_what_had_been_done_to_it(search: dict[str, Any]) -> None:
    assert "Accuracy of the chosen cut before recovery: 80.00%" in search_sentence(search)
    search["best"]["distill_steps"] = 32
    assert "Accuracy of the chosen cut after 32 steps of distillation: 80.00%" in search_sentence(
        search
    )


def test_error_of_the_latency_table_is_said(search: dict[str, Any]) -> None:
    text = search_view.latency_sentence(search)
    assert "3.1% cross-validated, and 2.0% on 2 candidates timed after it was fitted" in text
    assert "predicted 49.0% of the base's latency, measured 50.0%, 50.0% allowed" in text
    del search["latency"]
    assert search_view.latency_sentence(search) == search_view.latency_plot(search) == ""


def test_recovery_without_training_says_so() -> None:
    accuracy = {"teacher": 0.9, "cut": 0.5, "batchnorm": 0.7, "final": 0.7}
    distill = {"search_accuracy": accuracy, "training": None, "mode": "bn_only"}
    assert view.recovery_sentence(distill).endswith("after batch-norm re-estimation 70.00%.")
    assert view.recovery_plot(distill) == ""

"""The page and the summary: numbers are passed on unchanged, and nothing is claimed without its interval."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stages.report import plots, view
from stages.report.summary import summarise


def side(accuracy: float, macs: int) -> dict[str, Any]:
    latency = {"p50": macs / 1000, "p90": macs / 900, "p99": None}
    return {"accuracy": accuracy, "macs": macs, "params": macs // 10, "bytes": macs // 2, "latency_ms": latency}


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
    [("faster", "1.90 times as fast"), ("slower", "Slower"), ("no difference shown", "No difference in speed shown")],
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
    first = plots.widths([("stem", 16, 8), ("a<b", 32, 24)])
    assert first == plots.widths([("stem", 16, 8), ("a<b", 32, 24)])
    assert first.startswith("<svg ")
    assert "a&lt;b" in first
    assert not re.search(r"(href|src)=\"http", first)


def test_recovery_without_training_says_so() -> None:
    accuracy = {"teacher": 0.9, "cut": 0.5, "batchnorm": 0.7, "final": 0.7}
    distill = {"search_accuracy": accuracy, "training": None, "mode": "bn_only"}
    assert view.recovery_sentence(distill).endswith("after batch-norm re-estimation 70.00%.")
    assert view.recovery_plot(distill) == ""

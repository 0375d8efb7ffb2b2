"""Timings on the page: nothing is claimed without its interval, and nothing said unmeasured."""

from __future__ import annotations

import pytest
from report_documents import BENCHMARK, CHANGE, setting, side

from stages.report.views import timing


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
    text = timing.headline(speedup, side(0.9, 2000), side(0.893, 1000))
    assert text.startswith(start)
    assert "0.70 points of test accuracy lost" in text
    assert "0.80 to 2.00" in text


def test_a_change_of_accuracy_that_was_not_shown_is_not_claimed() -> None:
    sides = side(0.9, 2000), side(0.88, 1000)
    text = timing.headline(setting("faster", 1.9, 1.8, 2.0), *sides, CHANGE)
    assert text.endswith("no difference in test accuracy shown (-12.00 to +9.00 points)")
    assert timing.before_after(*sides, CHANGE)[0][3] == (
        "no difference shown (-12.00 to +9.00 points)"
    )


def test_a_rate_above_the_peak_is_not_given_as_a_part_of_it() -> None:
    why = {"a": {"gmacs_per_s": 15.0}, "b": {"gmacs_per_s": 6.0}, "peak_gmacs_per_s": 9.0}
    assert "9.0" not in timing.roofline_sentence({"why": why})


def test_a_ratio_that_was_not_shown_is_not_printed_as_a_speedup() -> None:
    first, second = timing.setting_rows(BENCHMARK["settings"])  # type: ignore[arg-type]
    assert first["ratio"] == "1.90×"
    assert second["ratio"] == "–"


def test_blank_where_there_were_too_few_samples() -> None:
    base = side(0.9, 2000)
    base["latency_ms"]["p90"] = None
    row = timing.before_after(base, side(0.9, 1000))[-1]
    assert row == ("p90 latency, ms", "", "1.111", "")


def faster(ratio: float) -> dict[str, object]:
    return setting("faster", ratio, ratio, ratio)


def test_a_row_for_every_setting_of_every_further_file() -> None:
    other = {"file": "int8.onnx", "accuracy": 0.875, "settings": [faster(2.0), faster(3.0)]}
    wide = {"file": "wide.onnx", "accuracy": None, "settings": [faster(1.5)]}
    rows = timing.against_rows({"against": [other, wide]})
    assert [(row["file"], row["accuracy"], row["ratio"]) for row in rows] == [
        ("int8.onnx", "87.50%", "2.00×"),
        ("int8.onnx", "87.50%", "3.00×"),
        ("wide.onnx", "not scored", "1.50×"),
    ]
    assert timing.against_rows({}) == []


def test_how_far_from_the_limit() -> None:
    why = {"a": {"gmacs_per_s": 8.04}, "b": {"gmacs_per_s": 6.0}, "peak_gmacs_per_s": 40.0}
    assert "8.0 and 6.0 of the 40.0 GMAC/s" in timing.roofline_sentence({"why": why})
    assert timing.roofline_sentence({}) == ""

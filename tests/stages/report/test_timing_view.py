"""The alignment plot, further files, and the machine's limit: passed on, and left out where
nothing was measured.
"""

from __future__ import annotations

from typing import Any

from stages.report import timing_view

ROWS = [
    {"kind": kind, "channels": width, "us": us}
    for kind in ("conv 3x3", "depthwise 3x3")
    for width, us in ((30, 53.0), (32, 33.0), (40, 70.0), (48, 69.0))
]
ALIGNMENT: dict[str, Any] = {
    "multiple": 16,
    "cost": {"2": 2.3, "8": 1.31, "16": 1.0, "32": 1.01},
    "rows": ROWS,
    "provider": "CPUExecutionProvider",
    "threads": 1,
    "machine": "0" * 16,
}


def setting(ratio: float) -> dict[str, Any]:
    side = {"latency_ms": {"p50": 1.0}}
    numbers = {
        "batch": 1,
        "threads": 1,
        "ratio": ratio,
        "ci95": [ratio, ratio],
        "aa_ci95": [1.0, 1.0],
    }
    return {
        "provider": "CPUExecutionProvider",
        "verdict": "faster",
        "a": side,
        "b": side,
        **numbers,
    }


def test_says_which_multiple_pays_what_others_cost_and_what_was_used() -> None:
    found = timing_view.alignment_block({}, {"alignment": ALIGNMENT}, {"metadata": {"align": 8}})
    assert found is not None
    assert "(CPU, 1 thread) channel counts that are multiples of 16 pay" in found["sentence"]
    assert "2.30× at other multiples of 2, 1.31× at other multiples of 8." in found["sentence"]
    assert "32" not in found["sentence"]
    assert found["sentence"].endswith("made with multiples of 8.")
    assert found["plot"].startswith("<svg ")
    assert found["plot"].count("multiple of 16") == 1
    assert "depthwise 3x3" in found["plot"]
    assert found == timing_view.alignment_block(
        {}, {"alignment": ALIGNMENT}, {"metadata": {"align": 8}}
    )


def test_the_searchs_own_measurement_is_shown_where_the_benchmark_made_none() -> None:
    assert (
        timing_view.alignment_block({"alignment": ALIGNMENT}, {"alignment": None}, {}) is not None
    )
    assert timing_view.alignment_block({}, {}, {}) is None


def test_a_row_for_every_setting_of_every_further_file() -> None:
    other = {"file": "int8.onnx", "accuracy": 0.875, "settings": [setting(2.0), setting(3.0)]}
    deaf = {"file": "deaf.onnx", "accuracy": None, "settings": [setting(1.5)]}
    rows = timing_view.against_rows({"against": [other, deaf]})
    assert [(row["file"], row["accuracy"], row["ratio"]) for row in rows] == [
        ("int8.onnx", "87.50%", "2.00×"),
        ("int8.onnx", "87.50%", "3.00×"),
        ("deaf.onnx", "not scored", "1.50×"),
    ]
    assert timing_view.against_rows({}) == []


def test_how_far_from_the_limit() -> None:
    why = {"a": {"gmacs_per_s": 8.04}, "b": {"gmacs_per_s": 6.0}, "peak_gmacs_per_s": 40.0}
    assert "8.0 and 6.0 of the 40.0 GMAC/s" in timing_view.roofline_sentence({"why": why})
    assert timing_view.roofline_sentence({}) == ""

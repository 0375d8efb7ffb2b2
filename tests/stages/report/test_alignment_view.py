"""Which channel counts pay: passed on, and left out where nothing was measured."""

from __future__ import annotations

from typing import Any

from stages.report.views import alignment

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


def test_says_which_multiple_pays_what_others_cost_and_what_was_used() -> None:
    found = alignment.alignment_block({}, {"alignment": ALIGNMENT}, {"metadata": {"align": 8}})
    assert found is not None
    assert "(CPU, 1 thread) channel counts that are multiples of 16 pay" in found["sentence"]
    assert "2.30× at other multiples of 2, 1.31× at other multiples of 8." in found["sentence"]
    assert "32" not in found["sentence"]
    assert found["sentence"].endswith("made with multiples of 8.")
    assert found["plot"].startswith("<svg ")
    assert found["plot"].count("multiple of 16") == 1
    assert "depthwise 3x3" in found["plot"]
    assert found == alignment.alignment_block(
        {}, {"alignment": ALIGNMENT}, {"metadata": {"align": 8}}
    )


def test_the_searchs_own_measurement_is_shown_where_the_benchmark_made_none() -> None:
    assert alignment.alignment_block({"alignment": ALIGNMENT}, {"alignment": None}, {}) is not None
    assert alignment.alignment_block({}, {}, {}) is None

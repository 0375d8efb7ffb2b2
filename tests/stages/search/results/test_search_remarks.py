"""A search says where it came out clearly otherwise than asked, and what to type."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import Command
from stages.search.results.remarks import remarks_on

AGAIN = Command("pipeline", "run", "my.yaml")


def document(macs: float, error: float = 0.03, fresh: float | None = None) -> dict[str, Any]:
    return {
        "budget": {"metric": "macs", "asked": 0.5, "realised": {"macs": {"fraction": macs}}},
        "latency": {"median_error_cross_validated": error, "median_error_fresh": fresh},
    }


@pytest.mark.parametrize(
    ("found", "align", "said"),
    [
        (document(0.48, 0.09, 0.1), 8, []),
        (document(0.41), 8, ["keeps 41.0% of the base's macs where 50.0% may stay"]),
        (document(0.41), 1, []),
        (document(0.5, error=0.14), 8, ["off by 14% (median), fitted to 40 candidates"]),
        (document(0.5, fresh=0.2), 8, ["off by 20%"]),
        (document(0.3, error=0.14), 8, ["off by 14%", "keeps 30.0%"]),
    ],
)
def test_what_is_clearly_off_is_said(found: dict[str, Any], align: int, said: list[str]) -> None:
    remarks = remarks_on(found, align, 40, AGAIN)
    assert len(remarks) == len(said)
    assert all(part in remark for part, remark in zip(said, remarks, strict=True))


def test_each_ends_in_a_command() -> None:
    table, unused = remarks_on(document(0.3, error=0.14), 8, 40, AGAIN)
    assert table.endswith("rlp pipeline run my.yaml --set search.latency_samples=80")
    assert unused.endswith("rlp pipeline run my.yaml --set search.align=4")


def test_a_latency_budget_is_judged_by_the_clock() -> None:
    found = document(0.5)
    found["budget"] = {
        "metric": "latency", "asked": 0.5, "realised": {"latency": {"fraction": 0.4}},
    }  # fmt: skip
    found["latency"] |= {"measured": 0.49, "median_error_fresh": 0.2}
    (said,) = remarks_on(found, 8, 40, AGAIN)
    assert "off by 20%" in said
    assert "the plan itself was timed, at 49.0% of the original" in said
    found["latency"]["measured"] = None
    assert "keeps 40.0% of the base's latency" in remarks_on(found, 8, 40, AGAIN)[1]


def test_a_budget_that_nobody_asked_for_is_not_missed() -> None:
    found = document(0.3)
    found["budget"]["accuracy_drop"] = {}
    del found["latency"]
    assert remarks_on(found, 8, 40, AGAIN) == []

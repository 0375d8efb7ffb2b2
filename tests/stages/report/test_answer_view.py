"""The first screen: nothing is claimed without its interval, and nothing said unmeasured."""

from __future__ import annotations

from typing import Any

import pytest
from report_documents import BENCHMARK, CHANGE, setting, side

from stages.report import plots
from stages.report.views import answer


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
    text = answer.headline(speedup, side(0.9, 2000), side(0.893, 1000))
    assert text.startswith(start)
    assert "0.70 points of test accuracy lost" in text
    assert "0.80 to 2.00" in text


def test_a_change_of_accuracy_that_was_not_shown_is_not_claimed() -> None:
    sides = side(0.9, 2000), side(0.88, 1000)
    text = answer.headline(setting("faster", 1.9, 1.8, 2.0), *sides, CHANGE)
    assert text.endswith("no difference in test accuracy shown (-12.00 to +9.00 points)")
    tiles = {name: change for name, _, _, change in answer.tiles(*sides, CHANGE)}
    assert tiles["test accuracy"] == "no difference shown (-12.00 to +9.00 points)"


def test_what_too_few_calls_were_timed_for_is_no_tile() -> None:
    base = side(0.9, 2000)
    base["latency_ms"]["p90"] = None
    assert "p90 latency" in [name for name, *_ in answer.tiles(side(0.9, 2000), side(0.9, 1000))]
    assert "p90 latency" not in [name for name, *_ in answer.tiles(base, side(0.9, 1000))]


def test_the_picture_has_every_file_that_was_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "accuracy_against_latency", lambda spots: seen.extend(spots) or "s")
    first = setting("faster", 2.0, 1.6, 2.5)
    others = [
        {"file": "mine.onnx", "accuracy": score, "accuracy_change": None, "settings": [first]}
        for score in (0.8, None)
    ]
    answer.answer_plot({**BENCHMARK, "against": others})
    names = ["original", "original, INT8 alone", "pruned", "pruned, INT8", "mine.onnx"]
    assert [spot.name for spot in seen] == names
    assert [spot.name for spot in seen if spot.chosen] == ["pruned, INT8"]
    assert [spot.name for spot in seen if spot.further] == ["mine.onnx"]
    final = seen[3]
    # the interval of the ratio is that of the time; that of the change is that of the accuracy
    assert final.ms == pytest.approx((0.9 * 1.9 / 2.0, 0.9, 0.9 * 1.9 / 1.8))
    assert final.accuracy == pytest.approx((78.0, 89.3, 99.0))

"""INT8 or fp32, from what was measured: the rule and its sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from stages.quantize.choice import Allowance, choose
from stages.quantize.report import Score, Timing
from stages.quantize.scoring import compare

SCORE = Score(1000, 0.84, 0.841, 0.1, (-0.1, 0.3), 0.98, 0.05)
FAST = Timing(1.8, (1.7, 1.9), "faster", (1.8, 1.0))
SLOW = Timing(0.8, (0.7, 0.9), "slower", (0.8, 1.0))
BUSY = Timing(1.5, (1.01, 2.3), "no difference shown", (1.5, 1.0))  # A against itself: as much
UNSURE = Timing(1.1, (0.9, 1.3), "no difference shown", (1.1, 1.0))


def test_faster_and_within_the_allowance_is_delivered() -> None:
    chosen, reason = choose("auto", SCORE, FAST, Allowance())
    assert chosen == "int8"
    assert "1.80× (1.70 to 1.90)" in reason
    assert reason.endswith(
        "as fast as fp32; -0.10 points of accuracy (-0.30 to +0.10) on 1,000 images"
    )
    same = choose("auto", replace(SCORE, drop=0.0), FAST, Allowance())[1]
    assert "; +0.00 points of accuracy" in same


@pytest.mark.parametrize(
    ("timing", "word"), [(SLOW, "slower"), (UNSURE, "no faster"), (BUSY, "no faster")]
)
def test_auto_delivers_nothing_that_is_not_shown_to_be_faster(timing: Timing, word: str) -> None:
    chosen, reason = choose("auto", SCORE, timing, Allowance())
    assert chosen == "fp32"
    assert word in reason
    assert choose("int8", SCORE, timing, Allowance())[0] == "int8"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"drop": 0.51}, "loses 0.51 points of accuracy"),
        ({"drop": math.nan}, "loses"),
        ({"top1_agreement": 0.89}, "same class for 89.0 %"),
        ({"output_error": 0.31}, "off by 0.31"),
        ({"accuracy": None, "drop": 2.0}, "points of agreement"),
    ],
)
def test_a_missed_limit_is_said_and_no_speed_makes_up_for_it(change: dict, word: str) -> None:
    for mode in ("auto", "int8"):
        chosen, reason = choose(mode, replace(SCORE, **change), FAST, Allowance())
        assert chosen == "fp32"
        assert word in reason


def test_the_drop_is_paired() -> None:
    labels = np.arange(400) % 4
    fp32 = np.eye(4)[labels]
    fp32[:40] = np.roll(fp32[:40], 1, axis=1)  # 40 wrong
    int8 = fp32.copy()
    int8[38:44] = np.roll(int8[38:44], 1, axis=1)  # two wrong still, four more
    score = compare(fp32, int8, labels)
    assert score.fp32_accuracy == 0.9
    assert score.accuracy == 0.89
    assert score.drop == pytest.approx(1.0)
    low, high = score.drop_ci95
    assert -0.2 < low < 0 < 1 < high < 2.2  # unpaired it would be 4 points wide on either side
    assert score.top1_agreement == pytest.approx(394 / 400)


def test_without_labels_the_drop_is_what_differs() -> None:
    fp32 = np.eye(4)[np.arange(100) % 4]
    int8 = np.concatenate([fp32[:97], fp32[3:][-3:][::-1]])
    score = compare(fp32, int8, None)
    assert score.accuracy is None
    assert score.drop == pytest.approx(100 * (1 - score.top1_agreement)) != 0


def test_outputs_that_are_no_numbers_are_the_largest_error() -> None:
    fp32 = np.eye(4)
    score = compare(fp32, np.full((4, 4), np.nan), np.arange(4))
    assert score.output_error == np.finfo(np.float64).max
    same = compare(fp32, fp32, np.arange(4))
    assert same.output_error == same.drop == 0
    assert same.drop_ci95[0] < 0 < same.drop_ci95[1], "four images prove nothing"


def test_a_share_is_not_rounded_up_to_its_limit() -> None:
    allowance = Allowance(top1_agreement=0.99)
    _, reason = choose("auto", replace(SCORE, top1_agreement=0.98999), FAST, allowance)
    assert "same class for 98.9 %" in reason

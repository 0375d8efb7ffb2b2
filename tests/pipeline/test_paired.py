"""Differences of accuracy on the same images: what is shown, what is chance, what would decide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.claims import change_sentence, change_text
from pipeline.paired import images_to_decide, near_chance, paired_change


@pytest.mark.parametrize(
    ("images", "gained", "lost", "shown"),
    [
        (1000, 0, 0, False),
        (1000, 5, 4, False),
        (1000, 3, 9, False),  # McNemar: p = 0.15
        (1000, 2, 14, True),  # p = 0.004
        (10_000, 10, 60, True),
        (20, 0, 5, False),  # p = 0.06, against an interval that excludes 0
    ],
)
def test_a_difference_is_shown_only_where_test_and_interval_agree(
    images: int, gained: int, lost: int, shown: bool
) -> None:
    found = paired_change(images, gained, lost)
    low, high = found["ci95"]
    assert found["shown"] is shown
    assert (low <= 0 <= high) is not shown
    assert low < high
    assert low <= found["points"] <= high
    assert found["points"] == pytest.approx(100 * (gained - lost) / images)


def test_the_interval_is_the_bootstraps_over_images() -> None:
    change = np.repeat([1.0, -1.0, 0.0], [40, 90, 1870])
    found = stats.bootstrap([change], np.mean, n_resamples=500, batch=100, rng=0)
    low, high = paired_change(2000, 40, 90)["ci95"]
    assert 100 * found.confidence_interval.low == pytest.approx(low, abs=0.25)
    assert 100 * found.confidence_interval.high == pytest.approx(high, abs=0.25)


def test_few_images_without_a_difference_still_leave_one_possible() -> None:
    low, high = paired_change(20, 0, 0)["ci95"]
    assert low < -5
    assert high > 5


def test_words_claim_what_was_shown_and_no_more() -> None:
    shown, not_shown = paired_change(1000, 2, 14), paired_change(1000, 5, 4)
    assert change_text(shown, -1.2) == "-1.20 points (-2.00 to -0.39)"
    assert change_text(not_shown, 0.1) == "no difference shown (-0.52 to +0.72 points)"
    assert change_text(None, 0.1) == "+0.10 points"
    assert change_sentence(shown, -1.2) == "1.20 points of test accuracy lost (-2.00 to -0.39)"
    assert "gained" not in change_sentence(not_shown, 0.1)
    assert change_sentence(None, 0.1) == "0.10 points of test accuracy gained"


def test_more_images_would_decide_the_nearer_the_limit_the_more() -> None:
    change = paired_change(200, 2, 3)  # half a point lost
    near, far = images_to_decide(change, 1.0), images_to_decide(change, 3.0)
    assert near is not None
    assert far is not None
    assert near > 200 > far
    assert images_to_decide(change, 0.5) is None


def test_guessing_is_told_from_knowing_by_the_number_of_images() -> None:
    assert near_chance(0.12, 100, 10)
    assert not near_chance(0.12, 10_000, 10)
    assert near_chance(0.05, 10_000, 10), "worse than guessing is no better"
    assert not near_chance(0.9, 50, 2)
    assert not near_chance(1.0, 50, 1)

"""The smallest budget within a drop of accuracy, on made-up accuracies."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config.schema import DistillConfig
from pipeline.config.search import Budget
from stages.search.front import FITS, Choice, FrontPoint, allowed_drop, least_within


def chosen(allowed: float, *, steep: float = 10.0) -> Choice:
    """Accuracy 0.9 less `steep` points for every halving of the cost."""

    def measure(share: float) -> FrontPoint:
        lost = steep * np.log2(1 / share) / 100
        return FrontPoint(np.array([1]), share, share, 1 / share, 0.9 - lost, measured=True)

    return least_within(measure, 1 / 16, 0.9, allowed, allowed)


@pytest.mark.parametrize("allowed", [3.0, 10.0, 25.0])
def test_the_chosen_budget_is_the_smallest_within_the_drop(allowed: float) -> None:
    found, answer = chosen(allowed), 2 ** (-allowed / 10)
    assert found.chosen is not None
    assert len(found.measured) == FITS
    assert answer <= found.chosen.share <= answer * 16 ** (1 / 2**FITS)
    within = [point for point in found.measured if 0.9 - point.accuracy <= allowed / 100]
    assert found.chosen.share == min(point.share for point in within)


def test_a_drop_that_no_plan_keeps_chooses_none() -> None:
    assert chosen(0.1).chosen is None


def test_where_every_plan_is_within_the_drop_the_smallest_measured_is_chosen() -> None:
    found = chosen(99.0)
    assert found.chosen is found.measured[-1]
    assert found.chosen.share < 1 / 16 * 1.05


def test_a_drop_met_exactly_is_met() -> None:
    """0.9 - 0.85 is more than 0.05 in binary."""
    point = FrontPoint(np.array([1]), 0.5, 0.5, 1.0, 0.85, measured=True)
    assert 0.9 - 0.85 > 0.05
    assert least_within(lambda share: point, 0.1, 0.9, 5.0, 5.0).chosen is point


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [({"epochs": 0}, 0.5), ({"mode": "bn_only", "epochs": 3}, 0.5), ({"epochs": 3}, 1.0),
     ({"epochs": "auto"}, 1.0)],
)  # fmt: skip
def test_training_may_bring_half_of_what_is_missing(
    settings: dict[str, object], allowed: float
) -> None:
    distill = DistillConfig.model_validate(settings)
    assert allowed_drop(Budget(accuracy_drop=0.5), distill) == (0.5, allowed)
    assert allowed_drop(Budget(accuracy_drop=0.5, before_recovery=0.7), distill) == (0.5, 0.7)

"""Budgets, dominated points, and accuracies that are predicted from others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.search.front import FrontPoint, predicted, shares, undominated
from stages.search.front.fronts import completed, spread


def point(
    cost: float, loss: float, accuracy: float | None = None, *, measured: bool | None = None
) -> FrontPoint:
    known = accuracy is not None if measured is None else measured
    return FrontPoint(np.array([round(100 * cost)]), cost, cost, loss, accuracy, known)


def test_budgets_go_from_the_whole_network_to_the_smallest_in_equal_proportions() -> None:
    found = shares(0.04, 24)
    assert (found[0], found[-1], len(found)) == (1.0, 0.04, 24)
    assert np.diff(np.log(found)) == pytest.approx(np.log(0.04) / 23)


def test_a_point_that_costs_and_loses_more_than_another_is_dropped() -> None:
    good = [point(0.2, 3.0), point(0.5, 1.0), point(1.0, 0.0)]
    worse = [point(0.6, 1.5), point(0.5, 1.2), point(0.9, 1.0)]
    assert undominated([*worse, *good]) == good


def test_a_measured_point_that_a_cheaper_one_beats_is_dropped() -> None:
    """Whatever the table said of them."""
    good = [point(0.2, 3.0, 0.7), point(0.8, 0.2, 0.8)]
    assert undominated([*good, point(0.5, 1.0, 0.69)]) == good
    assert len(undominated([*good, point(0.5, 1.0, 0.69, measured=False)])) == 3


def test_of_equal_plans_the_measured_one_stays() -> None:
    both = [point(0.5, 1.0), point(0.5, 1.0, 0.8)]
    assert undominated(both) == undominated(both[::-1]) == both[1:]


def test_a_plan_that_lost_by_its_measured_accuracy_does_not_come_back_predicted() -> None:
    """The whole network is measured, and planned for the largest budget as well."""
    better, whole = point(0.8, 0.2, 0.91), point(1.0, 0.0, 0.9)
    assert undominated([better, whole, point(1.0, 0.0)]) == [better]
    assert completed([whole, better, point(1.0, 0.0)]) == [better]


def test_predictions_go_through_what_is_known_and_stay_at_its_ends() -> None:
    known = [(0.0, 0.9), (1.0, 0.8), (4.0, 0.5)]
    points = [point(1.0, 0.0), point(0.5, 1.0), point(0.4, 2.0), point(0.1, 9.0)]
    found = [one.accuracy for one in predicted(points, known)]
    assert found[:2] == pytest.approx([0.9, 0.8])
    assert 0.5 < found[2] < 0.8
    assert found[3] == pytest.approx(0.5)
    assert not any(one.measured for one in predicted(points, known))


def test_what_is_known_may_contradict_itself_and_measured_points_stay() -> None:
    known = [(0.0, 0.9), (1.0, 0.7), (1.5, 0.8), (1.5, 0.76), (4.0, 0.5)]
    measured = point(0.3, 1.2, 0.33)
    found = predicted([measured, point(0.4, 1.0), point(0.5, 1.5)], known)
    assert found[0] is measured
    assert found[1].accuracy == found[2].accuracy == pytest.approx((0.7 + 0.8 + 0.76) / 3)


pairs = st.tuples(st.floats(0.05, 0.99), st.floats(1e-3, 9), st.floats(0, 1), st.booleans())


@given(st.lists(pairs, max_size=12))
def test_no_point_of_a_front_is_worse_than_a_cheaper_one(rows: list[tuple[float, ...]]) -> None:
    points = [
        point(cost, loss, accuracy if measured else None) for cost, loss, accuracy, measured in rows
    ]
    front = completed([point(1.0, 0.0, 0.9), *points], [(2.0, 0.6), (5.0, 0.7)])
    costs, losses, accuracies = (
        np.array([getattr(one, name) for one in front], dtype=float)
        for name in ("cost", "loss", "accuracy")
    )
    assert (np.diff(costs) > 0).all()
    assert (np.diff(losses) < 0).all()
    assert (np.diff(accuracies) >= -1e-12).all()


def test_points_to_be_measured_are_spread_from_end_to_end() -> None:
    points = [point(share, 1 / share) for share in shares(0.1, 9)]
    assert spread(points, 3) == points[::4]
    assert spread(points, 99) == points
    assert spread(points, 0) == []

"""What is measured of a table, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_nets import problem
from search_tasks import chain

from stages.search import InProcess, Search, Tabulation
from stages.search.tables import LossTable, measure_table
from stages.search.tables.loss_table import interpolated
from stages.search.tables.measure import Entry
from stages.search.tabulate import TABLE

WIDTHS = np.arange(8, 129, 8)


@given(
    known=st.dictionaries(st.sampled_from(WIDTHS[1:-1].tolist()), st.floats(0, 10), max_size=6),
    first=st.floats(0, 10),
)
def test_interpolated_losses_never_rise_with_the_width_and_pass_through_what_falls(
    known: dict[int, float], first: float
) -> None:
    measured = {**known, 8: first}
    losses = interpolated(WIDTHS, measured)
    assert losses[-1] == 0
    assert np.all(np.diff(losses) <= 0)
    for width in measured:
        wider = [other for at, other in measured.items() if at >= width]
        found = losses[WIDTHS.searchsorted(width)]
        assert found == pytest.approx(max(wider), abs=1e-9), "raised to that of wider ones"


def test_a_loss_below_the_whole_network_s_counts_as_none() -> None:
    assert interpolated(WIDTHS, {8: -0.1}).tolist() == [0.0] * len(WIDTHS)
    assert interpolated(np.array([5]), {}).tolist() == [0.0]


class Curves:
    """Losses of groups as functions of their widths; remembers what was asked."""

    def __init__(self, *curves: object) -> None:
        self.curves, self.asked, self.further = curves, [], []

    def __call__(self, entries: Sequence[Entry], further: int) -> list[float]:
        self.asked += entries
        self.further.append(further)
        return [self.curves[group](width) for group, width in entries]


def test_a_smooth_curve_takes_two_measurements_and_one_that_bends_more() -> None:
    space, _ = chain([256, 256, 8])
    curves = Curves(
        lambda width: (1 - width / 256) ** 2, lambda width: 40.0 / width**2, lambda width: 1.0
    )
    table = measure_table(space, curves, most=8)
    asked = [[width for group, width in curves.asked if group == place] for place in range(3)]
    assert len(asked[0]) == 2
    assert 4 < len(asked[1]) <= 8
    assert asked[2] == [], "one width is no choice"
    assert len(set(curves.asked)) == len(curves.asked)
    # at 32 of 256 nothing was measured at first; it is now about right
    found = table.losses[1][table.widths[1].searchsorted(32)]
    assert found == pytest.approx(40 / 32**2, rel=0.15)
    assert len(curves.asked) <= curves.further[0], "totals before the first"


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_group_is_measured_more_often_than_allowed(most: int) -> None:
    space, _ = chain([256, 64])
    curves = Curves(lambda width: 100.0 / width, lambda width: float(width < 40))
    measure_table(space, curves, most=most)
    assert max(np.bincount([group for group, _ in curves.asked])) <= most


def test_a_table_adds_up_the_losses_of_its_groups() -> None:
    table = LossTable.of([np.array([8, 16]), np.array([8, 16, 20])], [{8: 0.5}, {8: 0.3, 16: 0.1}])
    assert table(np.array([8, 16])) == pytest.approx(0.6)
    assert table(np.array([16, 20])) == 0


def test_entries_are_scores_of_candidates_that_cut_one_group() -> None:
    ready = problem(table={"images": 60, "widths": 2})
    evaluator = ready.table_evaluator()
    assert (len(evaluator.x), evaluator.score, evaluator.steps) == (60, "divergence", 0)
    totals: list[int] = []
    tabulation = Tabulation(ready.space, 2, Search(InProcess(evaluator)), totals.append)
    table = tabulation()
    first, *entries = tabulation.trials
    assert first.key == tuple(ready.space.sizes.tolist())
    assert {trial.phase for trial in tabulation.trials} == {TABLE}
    for trial in entries:
        (group,) = np.flatnonzero(trial.candidate.counts != ready.space.sizes)
        assert trial.candidate.proposed_as == ready.space.ids[group]
        width = int(trial.candidate.counts[group])
        loss = first.outcome.score - evaluator(trial.candidate.counts).score
        assert table.measured[group][width] == loss
    assert sum(len(known) for known in table.measured) == len(entries)
    assert totals[-1] >= len(tabulation.trials)

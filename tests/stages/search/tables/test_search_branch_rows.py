"""Residual branches that may go: as rows of the table, and in the plans made of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_tasks import residual

from stages.search.space import Projector, Space
from stages.search.tables import LossTable, measure_table, solve
from stages.search.tables.exact import best_of_separable, separable_sets
from stages.search.tables.exchange import exchange
from stages.search.tables.solver import descend

LONE, PAIRS = [[24], [16], [32]], [[16, 24], [24], [16, 16]]


def made_up(space: Space, rng: np.random.Generator) -> LossTable:
    """Falling losses down to the floors, and any at all for the branches."""
    widths, losses = [], []
    first = {places[0] for places in space.branches}
    for group in range(len(space)):
        own = space.widths(group)
        staying = own[own > 0]
        fall = rng.gamma(0.5, size=len(staying))
        falling = np.cumsum(fall[::-1])[::-1] - fall[-1]
        gone = [rng.gamma(1.0) * (group in first)] if space.may_go[group] else []
        widths.append(own)
        losses.append(np.append(gone, falling))
    return LossTable(tuple(widths), tuple(losses))


def posed(seed: int, branches: list[list[int]]) -> tuple[LossTable, Projector]:
    rng = np.random.default_rng(seed)
    space, cost = residual(branches)
    least = cost.of(space.least) / cost.of(space.sizes)
    share = least + (1 - least) * rng.uniform(0.05, 0.9)
    return made_up(space, rng), Projector.fraction(space, cost, share)


def optimum(table: LossTable, projector: Projector) -> float:
    """Least loss of all plans within the budget, by trying them all."""
    rows = np.array(list(itertools.product(*table.widths)))
    rows = rows[projector.cost.each(rows) <= projector.limit * (1 + projector.slack)]
    return min(table(counts) for counts in rows if projector.space.allows(counts))


@pytest.mark.parametrize("branches", [LONE, PAIRS])
def test_plans_with_branches_are_nearly_always_the_optimum(branches: list[list[int]]) -> None:
    gaps, went = [], 0
    for seed in range(30):
        table, projector = posed(seed, branches)
        counts = solve(table, projector)
        assert projector.fits(counts)
        assert projector.space.allows(counts)
        went += int((counts == 0).any())
        gaps.append(table(counts) - optimum(table, projector))
    assert min(gaps) > -1e-9
    assert sum(gap < 1e-9 for gap in gaps) >= 26
    assert went > 5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), paired=st.booleans())
def test_no_step_breaks_budget_or_branches(seed: int, paired: bool) -> None:
    table, projector = posed(seed, PAIRS if paired else LONE)
    counts = descend(table, projector)
    for movable in separable_sets(projector):
        better = best_of_separable(table, projector, counts, movable)
        assert table(better) <= table(counts)
        counts = better
    last = exchange(table, projector, counts)
    assert table(last) <= table(counts)
    for found in (counts, last):
        assert projector.fits(found)
        assert projector.space.allows(found)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), paired=st.booleans())
def test_a_plan_never_loses_more_for_being_allowed_to_drop_branches(
    seed: int, paired: bool
) -> None:
    table, projector = posed(seed, PAIRS if paired else LONE)
    keeping = projector.keeping_branches
    assert table(solve(table, projector)) <= table(solve(table.staying, keeping)) + 1e-12


def test_a_worthless_branch_goes_and_a_dear_one_stays() -> None:
    space, cost = residual(LONE)
    widths = tuple(space.widths(group) for group in range(len(space)))
    losses = [np.linspace(1.0, 0.0, len(own)) for own in widths]
    losses[1][0] = 0.0  # of the first branch nothing is missed
    losses[2][0] = losses[3][0] = 50.0
    table = LossTable(widths, tuple(losses))
    counts = solve(table, Projector.fraction(space, cost, 0.6))
    assert counts[1] == 0
    assert (counts[2:] >= space.floors[2:]).all()
    # and where branches may not go, it keeps its floor
    keeping = Projector.fraction(space, cost, 0.6).keeping_branches
    assert solve(table.staying, keeping)[1] >= space.floors[1] > 0


def test_a_budget_that_only_dropping_meets_drops() -> None:
    table, projector = posed(1, PAIRS)
    tight = projector.with_limit(projector.cost.of(projector.space.least))
    assert solve(table, tight).tolist() == projector.space.least.tolist()


@pytest.mark.parametrize("branches", [LONE, PAIRS])
def test_each_branch_is_one_row_beside_those_of_the_widths(branches: list[list[int]]) -> None:
    space, _ = residual(branches)
    asked: list[tuple[int, int]] = []

    def losses(entries: Sequence[tuple[int, int]], further: int) -> list[float]:
        assert further >= len(entries)
        asked.extend(entries)
        # a branch without any unit loses less than one at its floor
        return [0.01 if width == 0 else 1 - width / space.sizes[group] for group, width in entries]

    table = measure_table(space, losses, 2)
    gone = [group for group, width in asked if width == 0]
    assert gone == [places[0] for places in space.branches]
    for group in range(len(space)):
        assert sum(place == group and width > 0 for place, width in asked) <= 2
    for places in space.branches:
        without = space.moved(space.sizes, places[-1], 0)
        assert table(without) == pytest.approx(0.01)
        narrow = space.moved(space.sizes, places[0], space.floors[places[0]])
        assert table(narrow) > 0.2


@pytest.mark.parametrize("branches", [LONE, PAIRS])
def test_deltas_are_true_where_a_branch_goes_or_comes_back(branches: list[list[int]]) -> None:
    space, cost = residual(branches)
    projector = Projector(space, cost, cost.of(space.sizes))
    for start in (space.sizes, space.moved(space.sizes, 1, 0), space.least):
        for target in (space.sizes, space.floors, space.least):
            steps = target - start
            found = projector.deltas(start, steps)
            for group, step in enumerate(steps):
                alone = space.moved(start, group, start[group] + step)
                assert found[group] == pytest.approx(cost.of(alone) - cost.of(start)), group

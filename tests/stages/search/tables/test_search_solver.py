"""The solver against every plan there is, and on costs that couple groups."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_tasks import chain

from stages.search.space import Projector, Space
from stages.search.tables import LossTable, solve
from stages.search.tables.exact import best_of_separable, separable_sets
from stages.search.tables.exchange import exchange
from stages.search.tables.solver import descend, descent


def made_up(space: Space, rng: np.random.Generator) -> LossTable:
    """Falling losses with flat parts and jumps, neither convex nor smooth."""
    widths = [space.widths(group) for group in range(len(space))]
    falls = [rng.gamma(0.5, size=len(own)) * (rng.random(len(own)) < 0.8) for own in widths]
    losses = [np.cumsum(fall[::-1])[::-1] - fall[-1] for fall in falls]
    return LossTable(tuple(widths), tuple(losses))


def posed(seed: int, *, coupled: bool, groups: int = 4) -> tuple[LossTable, Projector]:
    """A chain of layers with at most six widths each; uncoupled, only outputs cost."""
    rng = np.random.default_rng(seed)
    space, cost = chain(rng.integers(8, 49, groups).tolist())
    if not coupled:
        ones, none = np.ones_like(cost.input_fixed), np.zeros_like(cost.inputs)
        cost = replace(cost, inputs=none, input_fixed=ones)
    least = cost.of(space.floors) / cost.of(space.sizes)
    share = least + (1 - least) * rng.uniform(0.1, 0.9)
    return made_up(space, rng), Projector.fraction(space, cost, share)


def optimum(table: LossTable, projector: Projector) -> float:
    """Least loss of all plans within the budget."""
    plans = map(np.array, itertools.product(*table.widths))
    return min(table(counts) for counts in plans if projector.fits(counts))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_where_costs_add_up_the_plan_is_the_optimum(seed: int) -> None:
    table, projector = posed(seed, coupled=False)
    assert [len(group) for group in separable_sets(projector)] == [4]
    counts = solve(table, projector)
    assert projector.fits(counts)
    assert table(counts) == pytest.approx(optimum(table, projector), abs=1e-9)


def test_where_costs_are_products_the_plan_is_nearly_always_the_optimum() -> None:
    gaps = []
    for seed in range(40):
        table, projector = posed(seed, coupled=True)
        counts = solve(table, projector)
        assert projector.fits(counts)
        assert projector.space.allows(counts)
        gaps.append(table(counts) - optimum(table, projector))
    assert min(gaps) > -1e-9
    assert sum(gap < 1e-9 for gap in gaps) >= 36


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(2, 9))
def test_a_plan_never_loses_more_than_the_uniform_one(seed: int, groups: int) -> None:
    table, projector = posed(seed, coupled=True, groups=groups)
    uniform = projector.logits(np.zeros(groups))
    assert table(solve(table, projector)) <= table(uniform)


def test_every_step_improves_on_the_one_before() -> None:
    better = {"exact": 0, "exchange": 0}
    for seed in range(20):
        table, projector = posed(seed, coupled=True, groups=6)
        first = counts = descend(table, projector)
        for movable in separable_sets(projector):
            counts = best_of_separable(table, projector, counts, movable)
        last = exchange(table, projector, counts)
        assert projector.fits(last)
        assert table(last) <= table(counts) <= table(first)
        better["exact"] += table(counts) < table(first)
        better["exchange"] += table(last) < table(counts)
    assert min(better.values()) > 0


def test_groups_that_meet_in_a_layer_are_in_different_sets() -> None:
    _, projector = posed(0, coupled=True, groups=6)
    sets = [group.tolist() for group in separable_sets(projector)]
    assert all(not {place, place + 1} <= set(chosen) for chosen in sets for place in chosen)
    assert set(itertools.chain.from_iterable(sets)) == set(range(6))


def test_a_budget_that_only_the_floors_meet_gives_the_floors() -> None:
    table, projector = posed(3, coupled=True)
    tight = projector.with_limit(projector.cost.of(projector.space.floors))
    assert solve(table, tight).tolist() == projector.space.floors.tolist()


def test_one_descent_passes_every_budget_on_its_way_to_the_floors() -> None:
    table, projector = posed(5, coupled=True, groups=6)
    path = list(descent(table, projector))
    costs = [projector.cost.of(counts) for counts in path]
    assert costs == sorted(costs, reverse=True)
    assert path[0].tolist() == projector.space.sizes.tolist()
    assert path[-1].tolist() == projector.space.floors.tolist()
    assert any(counts.tolist() == descend(table, projector).tolist() for counts in path)

"""No candidate leaves budget, alignment or floors, whatever a strategy aims at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_nets import trained
from search_tasks import chain, task

from pipeline.channels.widths import LayerWidths
from pipeline.errors import UsageError
from stages.search.latency import LatencyCost
from stages.search.space import Projector, Space, require_reachable

SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=12)


@st.composite
def targets(draw: st.DrawFn) -> tuple[Projector, np.ndarray]:
    sizes = draw(SIZES)
    space, cost = chain(
        sizes,
        align=draw(st.sampled_from([1, 4, 8, 16])),
        min_keep=draw(st.sampled_from([0.01, 0.1, 0.5])),
    )
    least = cost.of(space.floors) / cost.of(space.sizes)
    share = least + (1 - least) * draw(st.floats(0, 1))
    logits = draw(st.lists(st.floats(-60, 60), min_size=len(sizes), max_size=len(sizes)))
    return Projector.fraction(space, cost, max(share, 1e-9)), np.array(logits)


@settings(max_examples=150, deadline=None)
@given(targets())
def test_projection_is_within_budget_and_within_one_block_of_it(
    target: tuple[Projector, np.ndarray],
) -> None:
    projector, logits = target
    counts = projector.logits(logits)
    assert projector.space.allows(counts)
    assert projector.fits(counts)
    for group, step in enumerate(projector.space.up(counts)):
        if step:
            wider = counts.copy()
            wider[group] += step
            assert not projector.fits(wider), "another block would have fitted"


@settings(max_examples=60, deadline=None)
@given(targets())
def test_projecting_a_projected_candidate_changes_nothing(
    target: tuple[Projector, np.ndarray],
) -> None:
    projector, logits = target
    counts = projector.logits(logits)
    again = projector.along(lambda t: counts + (projector.space.sizes - counts) * t, 0.0, 1.0)
    assert again.tolist() == counts.tolist()


@settings(max_examples=60, deadline=None)
@given(targets(), st.lists(st.floats(-4, 4), min_size=1, max_size=6))
def test_many_targets_are_projected_as_each_of_them_is(
    target: tuple[Projector, np.ndarray], factors: list[float]
) -> None:
    projector, logits = target
    many = np.outer(factors, logits)
    assert projector.logits(many).tolist() == [projector.logits(one).tolist() for one in many]


@settings(max_examples=60, deadline=None)
@given(targets(), st.integers(0, 11), st.integers(1, 30))
def test_cost_deltas_are_exact(target: tuple[Projector, np.ndarray], group: int, step: int) -> None:
    projector, logits = target
    counts = projector.logits(logits)
    group %= len(counts)
    wider = counts.copy()
    wider[group] += step
    steps = np.full(len(counts), step)
    expected = projector.cost.of(wider) - projector.cost.of(counts)
    assert projector.cost.deltas(counts, steps)[group] == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 8, 16]))
def test_deltas_of_the_latency_table_are_differences_of_its_costs(chance: int, block: int) -> None:
    _, graph, _ = trained()
    space, rng = (
        Space.from_groups(graph.groups, align=8, min_keep=0.1),
        np.random.default_rng(chance),
    )
    widths = LayerWidths.of(graph, space.ids)
    a, b = rng.uniform(0, 1, (2, len(widths.names)))
    cost = LatencyCost(widths, space.sizes, block=block, constant=0.1, arithmetic=a, traffic=b)
    counts = space.snap(rng.uniform(0, 1, len(space)) * space.sizes)
    for steps in (space.up(counts), -space.down(counts)):
        moved = [cost.of(counts + step) - cost.of(counts) for step in np.diag(steps)]
        assert cost.deltas(counts, steps) == pytest.approx(moved, abs=1e-9)


def test_a_higher_target_gets_more_units() -> None:
    projector = task([64, 64, 64, 64], 0.4).projector
    even, second = ([0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0])
    assert projector.logits(np.array(second))[1] > projector.logits(np.array(even))[1]


def test_unreachable_budget_names_the_smallest_reachable() -> None:
    space, cost = chain([16, 16], align=8)
    with pytest.raises(
        UsageError,
        match=r"search\.budget\.macs=0\.05 cannot be met: the smallest reachable is 0\.\d+",
    ) as caught:
        Projector.fraction(space, cost, 0.05)
    reachable = float(caught.value.hint.split("=")[1].split(",")[0])
    assert Projector.fraction(space, cost, reachable).fits(space.floors)


def test_a_budget_that_is_reachable_is_not_refused_and_nothing_comes_of_asking() -> None:
    space, cost = chain([16, 16], align=8)
    assert require_reachable(space, cost, 0.99) is None
    with pytest.raises(UsageError, match="2 prunable groups"):
        require_reachable(space, cost, 0.05)

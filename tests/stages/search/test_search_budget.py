"""No candidate leaves the budget, the alignment or the floors, whatever a strategy wishes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_nets import trained
from search_problems import chain, problem

from pipeline.channels.widths import LayerWidths
from pipeline.errors import UsageError
from stages.search.budget import Projector
from stages.search.latency import LatencyCost
from stages.search.space import Space
from stages.trace import ChannelGraph, ChannelGroup

SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=12)


@st.composite
def wishes(draw: st.DrawFn) -> tuple[Projector, np.ndarray]:
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
@given(wishes())
def test_projection_is_within_budget_and_within_one_block_of_it(
    wish: tuple[Projector, np.ndarray],
) -> None:
    projector, logits = wish
    counts = projector.logits(logits)
    assert projector.space.allows(counts)
    assert projector.fits(counts)
    for group, step in enumerate(projector.space.up(counts)):
        if step:
            wider = counts.copy()
            wider[group] += step
            assert not projector.fits(wider), "another block would have fitted"


@settings(max_examples=60, deadline=None)
@given(wishes())
def test_projecting_a_projected_candidate_changes_nothing(
    wish: tuple[Projector, np.ndarray],
) -> None:
    projector, logits = wish
    counts = projector.logits(logits)
    again = projector.along(lambda t: counts + (projector.space.sizes - counts) * t, 0.0, 1.0)
    assert again.tolist() == counts.tolist()


@settings(max_examples=60, deadline=None)
@given(wishes(), st.lists(st.floats(-4, 4), min_size=1, max_size=6))
def test_many_wishes_are_projected_as_each_of_them_is(
    wish: tuple[Projector, np.ndarray], factors: list[float]
) -> None:
    projector, logits = wish
    many = np.outer(factors, logits)
    assert projector.logits(many).tolist() == [projector.logits(one).tolist() for one in many]


@settings(max_examples=60, deadline=None)
@given(wishes(), st.integers(0, 11), st.integers(1, 30))
def test_cost_deltas_are_exact(wish: tuple[Projector, np.ndarray], group: int, step: int) -> None:
    projector, logits = wish
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
    space, rng = Space.from_graph(graph, align=8, min_keep=0.1), np.random.default_rng(chance)
    widths = LayerWidths.of(graph, space.ids)
    a, b = rng.uniform(0, 1, (2, len(widths.names)))
    cost = LatencyCost(widths, space.sizes, block=block, constant=0.1, arithmetic=a, traffic=b)
    counts = space.snap(rng.uniform(0, 1, len(space)) * space.sizes)
    for steps in (space.up(counts), -space.down(counts)):
        moved = [cost.of(counts + step) - cost.of(counts) for step in np.diag(steps)]
        assert cost.deltas(counts, steps) == pytest.approx(moved, abs=1e-9)


def test_snap_allows_multiples_and_the_whole_width() -> None:
    space, _ = chain([44, 6, 16])
    assert space.floors.tolist() == [8, 6, 8]
    reached = {
        tuple(space.snap(np.array([44.0, 6.0, 16.0]) * r).tolist()) for r in np.linspace(0, 1, 200)
    }
    assert {counts[0] for counts in reached} == {8, 16, 24, 32, 40, 44}
    assert {counts[1] for counts in reached} == {6}
    assert {counts[2] for counts in reached} == {8, 16}


def test_more_wish_gets_more_units() -> None:
    projector = problem([64, 64, 64, 64], 0.4).projector
    low, high = (
        projector.logits(np.array([0.0, 0, 0, 0])),
        projector.logits(np.array([0.0, 2.0, 0, 0])),
    )
    assert high[1] > low[1]


def test_unreachable_budget_names_the_smallest_reachable() -> None:
    space, cost = chain([16, 16], align=8)
    with pytest.raises(
        UsageError,
        match=r"search\.budget\.macs=0\.05 cannot be met: the smallest reachable is 0\.\d+",
    ) as caught:
        Projector.fraction(space, cost, 0.05)
    reachable = float(caught.value.hint.split("=")[1].split(",")[0])
    assert Projector.fraction(space, cost, reachable).fits(space.floors)


def test_projection_takes_about_a_millisecond() -> None:
    """Loose bound: the real figure is printed by tests/bench/candidates.py."""
    projector = problem([64, 128, 256, 512] * 10, 0.5).projector
    rng = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(20):
        projector.logits(rng.standard_normal(40))
    assert (time.process_time() - start) / 20 < 0.05


def test_space_takes_prunable_groups_and_their_channel_multiplicity() -> None:
    groups = (
        ChannelGroup("plain", 24, ()),
        ChannelGroup("out", 10, (), prunable=False, reason="model output"),
        ChannelGroup("resnext", 4, (), channels_per_unit=32),
        ChannelGroup("by4", 6, (), channels_per_unit=4),
    )
    space = Space.from_graph(ChannelGraph(groups, {}), align=8, min_keep=0.1)
    assert space.ids == ("plain", "resnext", "by4")
    assert space.blocks.tolist() == [8, 1, 2]
    assert space.floors.tolist() == [8, 1, 2]

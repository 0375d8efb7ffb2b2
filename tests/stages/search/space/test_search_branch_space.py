"""Which groups may keep nothing, and that only whole branches go, whatever is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_nets import network
from search_tasks import chain, residual
from torch import zeros

from stages.search.space import Projector, Space
from stages.trace import trace

ROWS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed))


def posed(paired: bool) -> Space:
    return residual([[16, 24], [48]] if paired else [[40], [48]])[0]


@given(rng=ROWS, paired=st.booleans())
def test_snapped_counts_are_allowed_and_monotone(rng: np.random.Generator, paired: bool) -> None:
    space = posed(paired)
    low = rng.uniform(0, 1, len(space)) ** 3 * space.sizes
    high = low + rng.uniform(0, 0.2, len(space)) * space.sizes
    below, above = space.snap(low), space.snap(high)
    assert space.allows(below)
    assert space.allows(above)
    assert (below <= above).all()
    both = space.snap(np.stack([low, high]))
    assert both.tolist() == [below.tolist(), above.tolist()]


@given(rng=ROWS, paired=st.booleans(), share=st.floats(0.2, 1.0))
def test_projections_meet_the_budget_and_stay_where_they_are(
    rng: np.random.Generator, paired: bool, share: float
) -> None:
    space, cost = residual([[16, 24], [48]] if paired else [[40], [48]])
    projector = Projector.fraction(space, cost, max(share, 0.2))
    counts = projector.logits(3 * rng.standard_normal(len(space)))
    assert projector.fits(counts)
    assert space.allows(counts)
    kept = space.snap(space.sizes / (1 + np.exp(-space.logits(counts))))
    assert kept.tolist() == counts.tolist(), "what was chosen comes back from its logits"


def test_nothing_is_reachable_and_left_again() -> None:
    space, cost = residual([[40], [48]])
    projector = Projector.fraction(space, cost, 0.5)
    start = np.zeros(len(space))
    start[1] = -8.0
    assert projector.logits(start)[1] == 0
    gone = space.logits(projector.logits(start))
    gone[1] += 3.0
    assert projector.logits(gone)[1] > 0


def test_filling_up_brings_no_branch_back() -> None:
    space, cost = residual([[40], [48]])
    without = space.moved(space.sizes, 1, 0)
    assert space.up(without)[1] == 0
    assert space.up(without)[2] == 0, "it is whole"
    roomy = Projector(space, cost, cost.of(space.sizes) * 0.999)
    assert roomy.logits(space.logits(without))[1] in (0, 8, 16, 24, 32)


def test_downwards_a_group_at_its_floor_goes_where_it_may() -> None:
    space = posed(paired=False)
    assert space.down(space.floors).tolist() == [0, *space.floors[1:]]
    assert space.down(space.least).tolist() == [0, 0, 0]
    staying, _ = chain([16, 24])
    assert staying.down(staying.floors).tolist() == [0, 0]


def test_groups_of_one_branch_go_and_come_back_together() -> None:
    space = posed(paired=True)
    without = space.moved(space.sizes, 2, 0)
    assert without.tolist() == [16, 0, 0, 48]
    assert space.moved(without, 1, 16).tolist() == [16, 16, space.floors[2], 48]
    assert not space.allows(np.array([16, 0, 24, 48]))
    assert not space.allows(np.array([0, 16, 24, 48])), "the trunk stays"


def test_of_branches_within_branches_the_inner_one_may_go() -> None:
    graph = trace(network(), zeros(1, 1, 12, 12))
    names = [group.id for group in graph.prunable]
    nested = [set(names[1:3]), {names[2]}, {names[3]}]
    space = Space.from_groups(graph.groups, align=8, min_keep=0.1, branches=nested)
    assert space.branches == ((2,), (3,))


def test_a_group_wider_than_its_blocks_keeps_all_or_nothing() -> None:
    space, _ = residual([[12], [48]], align=16)
    assert space.widths(1).tolist() == [0, 12]
    assert space.snap(np.array([16.0, 5.9, 48.0])).tolist() == [16, 0, 48]
    assert space.snap(np.array([16.0, 6.0, 48.0])).tolist() == [16, 12, 48]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_space_offers_the_branches_that_the_trace_found(frozen: bool) -> None:
    graph = trace(network(), zeros(1, 1, 12, 12))
    inner = [branch.groups[0] for branch in graph.removable.values()]
    assert len(inner) == 3
    if frozen:
        graph = graph.with_frozen({inner[0]: "by hand"})
    space = Space.from_groups(graph.groups, align=8, min_keep=0.1, branches=graph.whole_branches)
    going = {space.ids[place] for places in space.branches for place in places}
    assert going == set(inner[frozen:])

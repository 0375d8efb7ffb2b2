"""Which widths a group may have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from search_nets import problem, random_counts
from search_tasks import chain

from stages.search.space import Candidate, Ranking, Space, key_of
from stages.search.space.ranking import Removal
from stages.trace import ChannelGraph, ChannelGroup


def test_snap_allows_multiples_and_the_whole_width() -> None:
    space, _ = chain([44, 6, 16])
    assert space.floors.tolist() == [8, 6, 8]
    reached = {
        tuple(space.snap(np.array([44.0, 6.0, 16.0]) * r).tolist()) for r in np.linspace(0, 1, 200)
    }
    assert {counts[0] for counts in reached} == {8, 16, 24, 32, 40, 44}
    assert {counts[1] for counts in reached} == {6}
    assert {counts[2] for counts in reached} == {8, 16}


def test_space_takes_prunable_groups_and_their_channel_multiplicity() -> None:
    groups = (
        ChannelGroup("plain", 24, ()),
        ChannelGroup("out", 10, (), prunable=False, reason="model output"),
        ChannelGroup("resnext", 4, (), channels_per_unit=32),
        ChannelGroup("by4", 6, (), channels_per_unit=4),
    )
    space = Space.from_groups(groups, align=8, min_keep=0.1)
    assert space.ids == ("plain", "resnext", "by4")
    assert space.blocks.tolist() == [8, 1, 2]
    assert space.floors.tolist() == [8, 1, 2]


def test_floors_are_shares_of_the_original() -> None:
    graph = ChannelGraph((ChannelGroup("a", 24, ()), ChannelGroup("b", 8, ())), {})
    space = Space.from_groups(graph.groups, align=8, min_keep=0.4, original={"a": 48, "b": 64})
    assert space.floors.tolist() == [24, 8], "24 of 48 is more than 0.4; b has less than that left"


@pytest.mark.parametrize("align", [1, 8])
def test_up_and_down_lead_from_one_allowed_width_to_the_next(align: int) -> None:
    space, _ = chain([44, 16], align=align)
    counts = space.floors.copy()
    seen = [counts[0]]
    while space.up(counts)[0]:
        counts = counts + space.up(counts) * [1, 0]
        assert space.allows(counts)
        assert counts[0] - space.down(counts)[0] == seen[-1]
        seen.append(counts[0])
    assert seen[-1] == 44


def test_counts_survive_their_dictionary() -> None:
    space, _ = chain([44, 16])
    counts = np.array([24, 8])
    assert space.from_dict(space.as_dict(counts)).tolist() == [24, 8]
    assert space.from_dict({"g1": 8}).tolist() == [44, 8], "a group that is not named is whole"


def test_the_most_important_units_stay_and_of_equal_ones_the_first() -> None:
    space, _ = chain([4, 3], align=1)
    importance = {"g0": torch.tensor([1.0, 3.0, 2.0, 3.0]), "g1": torch.tensor([1.0, 1.0, 1.0])}
    keep = Ranking.of(space, importance).keep(np.array([2, 2]))
    assert keep == {"g0": (1, 3), "g1": (0, 1)}


def test_removed_importance_is_that_of_the_least_important_units() -> None:
    ready = problem(criterion="taylor")
    counts, removed = random_counts(ready), Removal(ready.importance)
    kept = ready.ranking.keep(counts)
    total = sum(float(values.sum()) for values in ready.importance)
    held = sum(
        float(values[list(kept[name])].sum())
        for name, values in zip(ready.space.ids, ready.importance, strict=True)
    )
    assert removed(counts) == pytest.approx(total - held)
    assert removed(ready.space.sizes) == 0


def test_candidates_of_equal_counts_have_equal_keys() -> None:
    one, other = (Candidate(np.array([8, 16]), np.zeros(2), how) for how in ("policy", "uniform"))
    assert one.key == other.key == key_of(np.array([8, 16])) == (8, 16)

"""Plans: which units stay, what does not fit, and the file."""

from __future__ import annotations

import pytest
import torch
from channel_nets import Small

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.group import ChannelGroup
from pipeline.channels.importance import weight_norms
from pipeline.channels.plan import ChannelPlan, aligned
from pipeline.errors import ArtifactError, UsageError


def test_round_trip_is_byte_identical(graph: ChannelGraph) -> None:
    plan = ChannelPlan(
        {**ChannelPlan.uniform(graph).keep, "größe": (0, 1, 2, 9)}, {"seed": 3, "reward": 0.1}
    )
    assert ChannelPlan.from_json(plan.to_json()) == plan
    assert ChannelPlan.from_json(plan.to_json()).to_json() == plan.to_json()


def document(keep: str) -> str:
    return f'{{"keep": {keep}, "metadata": {{}}}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        document('{"a": "x"}'),
        document('{"a": "0-16777216"}'),
        document('{"a": "0-9000000", "b": "0-9000000"}'),
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        ChannelPlan.from_json(text)


def test_uniform_keeps_the_most_important(graph: ChannelGraph) -> None:
    importance = {"a": torch.arange(8.0), "b": -torch.arange(12.0)}
    plan = ChannelPlan.uniform(graph, 0.5, importance=importance)
    assert plan.keep == {"a": (4, 5, 6, 7), "b": (0, 1, 2, 3, 4, 5)}
    assert ChannelPlan.uniform(graph, 0.5, 4, importance).counts() == {"a": 4, "b": 8}
    assert ChannelPlan.uniform(graph, 0.99).counts() == {"a": 1, "b": 1}


@pytest.mark.parametrize(("cut", "multiple_of"), [(1.0, 1), (-0.1, 1), (0.5, 0)])
def test_uniform_refuses_what_makes_no_sense(
    graph: ChannelGraph, cut: float, multiple_of: int
) -> None:
    with pytest.raises(UsageError):
        ChannelPlan.uniform(graph, cut, multiple_of)


def test_uniform_ranks_by_the_norm_also_after_freezing(net: Small, graph: ChannelGraph) -> None:
    """Freezing used to lose the model, and with it the ranking: channels went by position."""
    with torch.no_grad():
        net.a.weight[:4] *= 0.01
        net.b.weight[:, :4] *= 0.01
    plan = ChannelPlan.uniform(graph.with_frozen({"b": "asked for"}), 0.5)
    assert plan.metadata["by"] == "l2"
    best = weight_norms(net, graph.slices)["a"].argsort(descending=True)[:4].tolist()
    assert plan.keep == {"a": tuple(sorted(best))}
    assert plan.keep != {"a": (0, 1, 2, 3)}


def test_uniform_without_a_model_says_so(graph: ChannelGraph) -> None:
    with pytest.warns(UserWarning, match="by position"):
        plan = ChannelPlan.uniform(ChannelGraph.from_json(graph.to_json()))
    assert plan.metadata["by"] == "position"


def test_alignment_counts_channels_not_units() -> None:
    wide = ChannelGroup("g", 20, (), channels_per_unit=4)
    assert aligned(wide, 9, 8) == 10
    assert aligned(ChannelGroup("g", 5, ()), 2, 8) == 5
    assert aligned(ChannelGroup("g", 64, ()), 3, 16) == 16

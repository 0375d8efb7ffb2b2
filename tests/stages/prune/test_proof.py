"""The proof itself: it notices a cut that is wrong, and one that does not run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from channel_nets import Small

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.group import ChannelGroup, Member
from pipeline.errors import Refused
from stages.prune import ChannelPlan, prove, prove_order


def with_members(graph: ChannelGraph, members: tuple[Member, ...]) -> ChannelGraph:
    """The graph with other members of b."""
    groups = tuple(ChannelGroup("b", 12, members) if g.id == "b" else g for g in graph.groups)
    return replace(graph, groups=groups)


def test_proof_notices_a_member_in_the_wrong_order(net: Small, graph: ChannelGraph) -> None:
    wrong = with_members(
        graph,
        tuple(
            m._replace(indices=m.indices[::-1]) if m.parameter == "head.weight" else m
            for m in graph["b"].members
        ),
    )
    x = torch.randn(2, 3, 8, 8)
    assert prove_order(net, graph, [x]).relative < 1e-12
    assert prove_order(net, wrong, [x]).relative > 1e-3
    assert prove(net, wrong, ChannelPlan({"b": (0, 1, 2)}), [x]).relative > 1e-3


def test_proof_refuses_a_network_that_does_not_run(net: Small, graph: ChannelGraph) -> None:
    wrong = with_members(
        graph, tuple(m for m in graph["b"].members if m.parameter != "head.weight")
    )
    with pytest.raises(Refused, match="does not run"):
        prove(net, wrong, ChannelPlan({"b": (0,)}), [torch.randn(1, 3, 8, 8)])

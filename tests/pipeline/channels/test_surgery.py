"""`cut` and `mask`: what they change, what they leave alone, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from channel_nets import Auxiliary, Small, digest, small_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut, mask, sliced_tensors
from pipeline.errors import ArtifactError


def test_cut_updates_shapes_and_attributes(net: Small, graph: ChannelGraph) -> None:
    small = cut(net, graph, ChannelPlan({"a": (1, 4, 5), "b": (0, 2)}))
    assert (small.a.out_channels, small.n.num_features) == (3, 3)
    assert (small.d.in_channels, small.d.out_channels, small.d.groups) == (3, 3, 3)
    assert (small.b.in_channels, small.b.out_channels) == (3, 2)
    assert (small.head.in_features, small.head.out_features) == (2, 4)
    assert torch.equal(small.a.weight, net.a.weight[[1, 4, 5]])
    assert torch.equal(small.n.running_mean, net.n.running_mean[[1, 4, 5]])
    assert torch.equal(small.b.weight, net.b.weight[[0, 2]][:, [1, 4, 5]])


def test_cut_leaves_its_input_alone(net: Small, graph: ChannelGraph) -> None:
    net.train()
    net.a.weight.requires_grad_(False)
    before = digest(net)
    plan = ChannelPlan.uniform(graph)
    small = cut(net, graph, plan)
    with torch.no_grad():
        for changed in (small, mask(net, graph, plan)):
            for tensor in (*changed.parameters(), *changed.buffers()):
                tensor.zero_()
    assert digest(net) == before
    assert net.a.out_channels == 8
    assert small.training
    assert not small.a.weight.requires_grad
    assert small.b.weight.requires_grad


def test_masked_network_keeps_its_shape_and_silences(net: Small, graph: ChannelGraph) -> None:
    silent = mask(net, graph, ChannelPlan({"a": (0, 1)}))
    assert silent.a.weight.shape == net.a.weight.shape
    assert not silent.a.weight[2:].any()
    assert not silent.b.weight[:, 2:].any()
    assert torch.equal(silent.a.weight[:2], net.a.weight[:2])


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_cut_computes_what_the_masked_network_computes(
    net: Small, graph: ChannelGraph, data: st.DataObject
) -> None:
    keep = {
        group.id: tuple(sorted(data.draw(st.sets(st.integers(0, group.size - 1), min_size=1))))
        for group in graph.prunable
    }
    wide, plan = copy.deepcopy(net).double().eval(), ChannelPlan(keep)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        small, silent = (act(wide, graph, plan)(x) for act in (cut, mask))
    assert torch.allclose(small, silent, rtol=1e-12, atol=1e-14)


def test_sliced_tensors_load_into_a_cut_copy(net: Small, graph: ChannelGraph) -> None:
    plan = ChannelPlan.uniform(graph, 0.25)
    small = cut(net, graph, plan)
    expected = digest(small)
    changed = sliced_tensors(net, graph, plan)
    state = small.state_dict()
    with torch.no_grad():
        for name in changed:
            state[name].zero_()
    assert digest(small) != expected
    small.load_state_dict(changed, strict=False)
    assert digest(small) == expected


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"nowhere": (0,)}, "does not have"),
        ({"a": ()}, "every channel"),
        ({"a": (1, 0)}, "ascending"),
        ({"a": (0, 0)}, "ascending"),
        ({"a": (-1, 0)}, "ascending"),
        ({"a": (0, 8)}, "ascending"),
        ({"head": (0,)}, "model output"),
    ],
)
def test_plan_of_another_network_is_refused(
    net: Small, graph: ChannelGraph, keep: dict[str, tuple[int, ...]], message: str
) -> None:
    for act in (cut, mask, sliced_tensors):
        with pytest.raises(ArtifactError, match=message):
            act(net, graph, ChannelPlan(keep))


def test_graph_of_another_network_is_refused(graph: ChannelGraph) -> None:
    other = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.raises(ArtifactError, match="not of this network") as caught:
        cut(other, graph, ChannelPlan({"a": (0,)}))
    assert len(caught.value.details) == 2


def test_heads_of_training_follow_the_cut() -> None:
    net = Auxiliary()
    small = cut(net, small_graph(net), ChannelPlan({"a": (0, 1, 5)})).train()
    assert small.aux.in_features == 3
    outputs = small(torch.randn(2, 3, 8, 8))
    assert [output.shape for output in outputs] == [(2, 4), (2, 4)]

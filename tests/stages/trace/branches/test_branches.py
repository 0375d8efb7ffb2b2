"""Which residual branches may go, and that a network without one is the silenced network."""

from __future__ import annotations

import pytest
import torch
from residual_nets import REMOVABLE, STAYING, Around, Inverted, conv
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from stages.prune import CostModel, prove, prune
from stages.trace import trace

EXAMPLE = torch.zeros(2, 3, 8, 8)


def exercised(net: nn.Module) -> nn.Module:
    """With weights and statistics that hide no mistake."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(params=REMOVABLE)
def case(
    request: pytest.FixtureRequest,
) -> tuple[nn.Module, ChannelGraph, dict[str, tuple[str, ...]]]:
    found = REMOVABLE[request.param]
    net = exercised(found.build())
    return net, trace(net, EXAMPLE), found.branches


def test_every_branch_is_found_with_its_groups(case) -> None:
    _, graph, branches = case
    assert {branch.id: branch.groups for branch in graph.branches} == branches
    assert all(branch.removable for branch in graph.branches)


def test_a_network_without_a_branch_is_the_silenced_network(case) -> None:
    net, graph, _ = case
    for size in (8, 9, 13):  # also at sizes that no stride divides
        x = torch.randn(2, 3, size, size)
        for plan in plans(graph):
            assert prove(net, graph, plan, (x,)).relative < 1e-12


def test_its_parameters_are_gone_and_cost_nothing(case) -> None:
    net, graph, _ = case
    for plan in plans(graph):
        small = prune(net, graph, plan)
        names = set(small.state_dict())
        gone = [name for name in net.state_dict() for b in plan.branches(graph) if b.holds(name)]
        assert gone
        assert not names.intersection(gone)
        left = sum(parameter.numel() for parameter in small.parameters())
        assert CostModel(graph).params(plan.counts(), plan.drop) == left


def plans(graph: ChannelGraph) -> list[ChannelPlan]:
    """Each branch alone, and all of them, the rest of the network cut as well."""
    even = ChannelPlan.uniform(graph, 0.4)
    names = [branch.id for branch in graph.branches]
    return [
        ChannelPlan(
            {g: u for g, u in even.keep.items() if g not in gone_with(graph, drop)}, {}, drop
        )
        for drop in [(), *((name,) for name in names), tuple(names)][1:]
    ]


def gone_with(graph: ChannelGraph, drop: tuple[str, ...]) -> set[str]:
    return {group for b in graph.branches if b.id in drop for group in b.groups}


@pytest.mark.parametrize("name", STAYING)
def test_neighbours_keep_their_branches(name: str) -> None:
    graph = trace(exercised(STAYING[name]()), EXAMPLE)
    assert not graph.removable
    assert all(branch.reason for branch in graph.branches)


REASONS = {
    "Gated": "sigmoid",
    "Looks": "does not run without it",
    "TiedWeight": "conv.0.weight",
    "InPlace": "write into memory",
    "Broadcast": "different shapes",
    "NoTrunk": "not computed from",
}


@pytest.mark.parametrize(("name", "part"), REASONS.items())
def test_a_branch_that_stays_says_why(name: str, part: str) -> None:
    graph = trace(exercised(STAYING[name]()), EXAMPLE)
    assert [b for b in graph.branches if part in b.reason]


def test_a_branch_that_an_auxiliary_head_reads_stays() -> None:
    class Block(Inverted):
        def __init__(self) -> None:
            super().__init__()
            self.aux = conv(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return x + y + (self.aux(y).mean() if self.training else 0)

    assert not trace(exercised(Around(Block)), EXAMPLE).removable


def test_the_network_itself_is_not_changed() -> None:
    net = exercised(REMOVABLE["Basic"].build())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = trace(net, EXAMPLE)
    small = cut(net, graph, ChannelPlan({}, {}, ("block",)))
    assert isinstance(net.block.conv1, nn.Conv2d)
    assert not isinstance(small.block.conv1, nn.Conv2d)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_frozen_group_freezes_its_branch() -> None:
    graph = trace(exercised(REMOVABLE["Inverted"].build()), EXAMPLE)
    frozen = graph.with_frozen({"block.conv.0": "frozen by trace.freeze"})
    assert not frozen.removable
    assert frozen.branches[0].reason == "frozen by trace.freeze"


def test_branches_survive_json() -> None:
    graph = trace(exercised(REMOVABLE["Strided"].build()), EXAMPLE)
    assert graph.branches[0].endings[0].stride == (2, 2)
    assert ChannelGraph.from_json(graph.to_json()) == graph

"""`prune` and `mask`: what they leave alone, what they refuse, and that a cut network goes on
living.
"""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pipeline.channels.plan import aligned
from pipeline.errors import ArtifactError, Refused, UsageError
from pipeline.models.torchvision_shim import import_torchvision
from stages.prune import (
    CRITERIA,
    ChannelPlan,
    CostModel,
    mask,
    prove,
    prove_order,
    prune,
    rank_channels,
    sliced_tensors,
)
from stages.trace import ChannelGraph, ChannelGroup, Member, trace

models = import_torchvision().models


class Small(nn.Module):
    """Two convolutions with batch norm, a depthwise one between them, dropout and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.d = (
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=8),
        )
        self.b, self.drop, self.head = nn.Conv2d(8, 12, 1), nn.Dropout(0.5), nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.b(self.d(F.relu(self.n(self.a(x))))))
        return self.head(self.drop(x.mean((2, 3))))


@pytest.fixture
def net() -> Small:
    torch.manual_seed(0)
    net = Small()
    with torch.no_grad():
        net.n.weight.uniform_(0.5, 1.5)
        net.n.running_mean.normal_()
    return net


@pytest.fixture
def graph(net: Small) -> ChannelGraph:
    return trace(net, torch.randn(1, 3, 8, 8))


def digest(net: nn.Module) -> str:
    whole = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


def test_cut_updates_shapes_and_attributes(net: Small, graph: ChannelGraph) -> None:
    small = prune(net, graph, ChannelPlan({"a": (1, 4, 5), "b": (0, 2)}))
    assert (small.a.out_channels, small.n.num_features, small.d.in_channels, small.d.groups) == (
        3,
        3,
        3,
        3,
    )
    assert (
        small.b.in_channels,
        small.b.out_channels,
        small.head.in_features,
        small.head.out_features,
    ) == (3, 2, 2, 4)
    assert torch.equal(small.a.weight, net.a.weight[[1, 4, 5]])
    assert torch.equal(small.n.running_mean, net.n.running_mean[[1, 4, 5]])
    assert torch.equal(small.b.weight, net.b.weight[[0, 2]][:, [1, 4, 5]])


def test_cut_leaves_its_input_alone(net: Small, graph: ChannelGraph) -> None:
    net.train()
    net.a.weight.requires_grad_(False)
    before = digest(net)
    plan = ChannelPlan.uniform(graph)
    small, silent = prune(net, graph, plan), mask(net, graph, plan)
    with torch.no_grad():
        for tensor in [
            *small.parameters(),
            *small.buffers(),
            *silent.parameters(),
            *silent.buffers(),
        ]:
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


def test_proof_notices_a_wrong_member(net: Small, graph: ChannelGraph) -> None:
    """The proof itself: a group that forgets to follow one reader is caught."""
    group = graph["b"]
    twisted = tuple(
        Member(m.parameter, m.dim, m.indices[::-1] if m.parameter == "head.weight" else m.indices)
        for m in group.members
    )
    wrong = copy.copy(graph)
    object.__setattr__(
        wrong,
        "groups",
        tuple(ChannelGroup(g.id, g.size, twisted) if g.id == "b" else g for g in graph.groups),
    )
    wrong = ChannelGraph.from_json(wrong.to_json())
    x = torch.randn(2, 3, 8, 8)
    assert prove_order(net, wrong, [x]).relative > 1e-3
    assert prove(net, wrong, ChannelPlan({"b": (0, 1, 2)}), [x]).relative > 1e-3


def test_proof_refuses_a_network_that_does_not_run(net: Small, graph: ChannelGraph) -> None:
    lost = tuple(m for m in graph["b"].members if m.parameter != "head.weight")
    wrong = ChannelGraph.from_json(graph.to_json())
    object.__setattr__(
        wrong,
        "groups",
        tuple(ChannelGroup("b", 12, lost) if g.id == "b" else g for g in graph.groups),
    )
    with pytest.raises(Refused, match="does not run"):
        prove(net, wrong, ChannelPlan({"b": (0,)}), [torch.randn(1, 3, 8, 8)])


def test_sliced_tensors_load_into_a_cut_twin(net: Small, graph: ChannelGraph) -> None:
    plan = ChannelPlan.uniform(graph, 0.25)
    twin = prune(net, graph, plan)
    expected = digest(twin)
    changed = sliced_tensors(net, graph, plan)
    with torch.no_grad():
        for name in changed:
            twin.get_parameter(name).zero_() if name in dict(
                twin.named_parameters()
            ) else twin.get_buffer(name).zero_()
    twin.load_state_dict(changed, strict=False)
    assert digest(twin) == expected


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
    net: Small, graph: ChannelGraph, keep: dict, message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        prune(net, graph, ChannelPlan(keep))


def test_graph_of_another_network_is_refused(graph: ChannelGraph) -> None:
    other = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.raises(ArtifactError, match="not of this network") as caught:
        prune(other, graph, ChannelPlan({"a": (0,)}))
    assert len(caught.value.details) == 2


def test_plan_round_trip_is_byte_identical(graph: ChannelGraph) -> None:
    plan = ChannelPlan(
        {**ChannelPlan.uniform(graph).keep, "größe": (0, 1, 2, 9)}, {"seed": 3, "reward": 0.1}
    )
    assert ChannelPlan.from_json(plan.to_json()) == plan
    assert ChannelPlan.from_json(plan.to_json()).to_json() == plan.to_json()
    for text in (
        "",
        "{}",
        '{"schema_version": 9}',
        '{"schema_version": 1, "keep": {"a": "x"}, "metadata": {}}',
    ):
        with pytest.raises(ArtifactError):
            ChannelPlan.from_json(text)


def test_uniform_keeps_the_most_important(graph: ChannelGraph) -> None:
    importance = {"a": torch.arange(8.0), "b": -torch.arange(12.0)}
    plan = ChannelPlan.uniform(graph, 0.5, importance=importance)
    assert plan.keep == {"a": (4, 5, 6, 7), "b": (0, 1, 2, 3, 4, 5)}
    assert ChannelPlan.uniform(graph, 0.5, 4, importance).counts() == {"a": 4, "b": 8}
    assert ChannelPlan.uniform(graph, 0.99).counts() == {"a": 1, "b": 1}
    with pytest.raises(UsageError):
        ChannelPlan.uniform(graph, 1.0)


def test_uniform_without_a_model_says_so(graph: ChannelGraph) -> None:
    with pytest.warns(UserWarning, match="by position"):
        plan = ChannelPlan.uniform(ChannelGraph.from_json(graph.to_json()))
    assert plan.metadata["by"] == "position"


def test_alignment_counts_channels_not_units() -> None:
    wide = ChannelGroup("g", 20, (), channels_per_unit=4)
    assert aligned(wide, 9, 8) == 10
    assert aligned(ChannelGroup("g", 5, ()), 2, 8) == 5
    assert aligned(ChannelGroup("g", 64, ()), 3, 16) == 16


def test_costs_by_hand(graph: ChannelGraph) -> None:
    costs = CostModel(graph)
    rows = {row.name: row for row in costs.layers({"a": 3, "b": 2})}
    assert (rows["a"].macs, rows["a"].params) == (6 * 6 * 3 * 3 * 9, 3 * 3 * 9)
    assert (rows["d"].macs, rows["d"].out_channels, rows["d"].in_channels) == (4 * 4 * 3 * 9, 3, 3)
    assert (rows["head"].macs, rows["head"].params) == (2 * 4, 2 * 4 + 4)
    assert sum(row.macs for row in rows.values()) == costs.macs({"a": 3, "b": 2})
    assert sum(row.params for row in rows.values()) == costs.params({"a": 3, "b": 2})


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_leaves_everything_as_it_was(
    net: Small, graph: ChannelGraph, criterion: str
) -> None:
    net.train()
    net.b.weight.requires_grad_(False)
    net.a.weight.grad = torch.ones_like(net.a.weight)
    before, random = digest(net), torch.get_rng_state()
    batches = [
        (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4))
    ]
    scores = rank_channels(net, graph, criterion, batches)
    assert {group: tuple(score.shape) for group, score in scores.items()} == {
        "a": (8,),
        "b": (12,),
        "head": (4,),
    }
    assert all(
        score.dtype == torch.float64 and bool(torch.isfinite(score).all())
        for score in scores.values()
    )
    assert digest(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in net.modules())
    assert not net.b.weight.requires_grad
    assert torch.equal(net.a.weight.grad, torch.ones_like(net.a.weight))
    assert net.head.weight.grad is None


def test_scores_by_hand(net: Small, graph: ChannelGraph) -> None:
    l2 = rank_channels(net, graph, "l2")["b"]
    squares = net.b.weight.detach().double().square().sum(
        (1, 2, 3)
    ) + net.head.weight.detach().double().square().sum(0)
    assert torch.allclose(l2, squares.sqrt())
    scale = rank_channels(net, graph, "bn_scale")
    assert torch.equal(scale["a"], net.n.weight.detach().abs().double())
    assert torch.equal(scale["b"], l2)  # no batch norm there
    one, two = rank_channels(net, graph, "random"), rank_channels(net, graph, "random", seed=1)
    assert torch.equal(one["a"], rank_channels(net, graph, "random")["a"])
    assert not torch.equal(one["a"], two["a"])


def test_taylor_by_hand(net: Small, graph: ChannelGraph) -> None:
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    score = rank_channels(net, graph, "taylor", [(x, y)])["b"]
    twin = copy.deepcopy(net).eval()
    F.cross_entropy(twin(x), y).backward()
    parts = [(p * p.grad).abs() for p in (twin.b.weight, twin.b.bias, twin.head.weight)]
    expected = parts[0].sum((1, 2, 3)) + parts[1] + parts[2].sum(0)
    assert torch.allclose(score, expected.detach().double(), rtol=1e-5)


def test_criteria_are_refused_clearly(net: Small, graph: ChannelGraph) -> None:
    with pytest.raises(UsageError, match="calibration batches"):
        rank_channels(net, graph, "taylor")
    with pytest.raises(UsageError, match="unknown importance"):
        rank_channels(net, graph, "l3")


class Auxiliary(Small):
    """A second head that only training uses, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(8, 4)

    def forward(self, x):
        features = F.relu(self.n(self.a(x)))
        logits = self.head(F.relu(self.b(self.d(features))).mean((2, 3)))
        return (logits, self.aux(features.mean((2, 3)))) if self.training else logits


def test_heads_of_training_follow_the_cut() -> None:
    net, x = Auxiliary(), torch.randn(2, 3, 8, 8)
    graph = trace(net, x)
    small = prune(net, graph, ChannelPlan({"a": (0, 1, 5)})).train()
    assert small.aux.in_features == 3
    assert [output.shape for output in small(x)] == [(2, 4), (2, 4)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(x)
    assert CostModel(graph).macs() * 2 * len(x) == counter.get_total_flops()

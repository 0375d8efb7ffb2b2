"""Layers behind a branch that has gone are fitted to what the original gave with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.channels.rebuild import rebuild
from stages.prune import ChannelPlan, prune
from stages.reconstruct import Reconstruction, reconstruct_layers
from stages.reconstruct.branch_refits import BranchRefits
from stages.reconstruct.forward import survey
from stages.reconstruct.independent import Moments
from stages.reconstruct.patches import Sampling
from stages.trace import ChannelGraph, trace
from tests.stages.reconstruct.twin_nets import norm


class Block(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.a, self.n1 = nn.Conv2d(12, inner, 3, padding=1, bias=False), norm(inner)
        self.b, self.n2 = nn.Conv2d(inner, 12, 1, bias=False), norm(12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.n2(self.b(F.relu(self.n1(self.a(x)))))


class Trunk(nn.Module):
    """Three residual blocks of different widths on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n0 = nn.Conv2d(3, 12, 3, padding=1, bias=False), norm(12)
        self.blocks = nn.Sequential(Block(6), Block(24), Block(20))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.blocks(self.n0(self.stem(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Trunk().eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    torch.manual_seed(1)
    return F.avg_pool2d(torch.randn(96, 3, 20, 20), 3, 1)


@pytest.fixture(scope="module")
def graph(net: nn.Module, x: Tensor) -> ChannelGraph:
    return trace(net, x[:1])


def refitted(
    net: nn.Module, graph: ChannelGraph, x: Tensor, plan: ChannelPlan
) -> tuple[nn.Module, Reconstruction]:
    small = prune(net, graph, plan)
    return small, reconstruct_layers(small, net, graph, plan, x)


def error(net: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((net(x) - other(x)).square().mean())


@pytest.mark.parametrize("drop", ["blocks.0", "blocks.1", "blocks.2"])
def test_the_layers_behind_make_up_for_a_branch(
    net: nn.Module, graph: ChannelGraph, x: Tensor, drop: str
) -> None:
    small, done = refitted(net, graph, x, ChannelPlan({}, {}, (drop,)))
    fresh = F.avg_pool2d(torch.randn(64, 3, 20, 20), 3, 1)
    assert error(net, done.model, fresh) < 0.5 * error(net, small, fresh)
    assert all(layer.reason != "it is never reached" for layer in done.layers)
    assert not [layer for layer in done.layers if layer.name.startswith(f"{drop}.")]


def test_a_branch_that_gives_a_constant_is_made_up_for(graph: ChannelGraph, x: Tensor) -> None:
    torch.manual_seed(0)
    net = Trunk().eval()
    nn.init.zeros_(net.blocks[1].n2.weight)  # its bias alone is added
    small, done = refitted(net, graph, x, ChannelPlan({}, {}, ("blocks.1",)))
    # all but what zeros around the map make of it in a 3×3 convolution
    assert error(net, done.model, x) < 1e-3 * error(net, small, x)


def test_a_layer_is_asked_for_what_the_branch_before_it_gave(
    net: nn.Module, graph: ChannelGraph, x: Tensor
) -> None:
    """Sums are matched by place, and places are others where calls are missing: asked for another
    sum, the last block would be led astray.
    """
    plan = ChannelPlan({}, {}, ("blocks.0",))
    small, done = refitted(net, graph, x, plan)
    seen: dict[str, list[Tensor]] = {"before": [], "after": [], "wanted": []}
    for name, model in (("before", small), ("after", done.model), ("wanted", net)):
        for block in model.blocks:
            block.register_forward_hook(lambda _, __, out, name=name: seen[name].append(out))
        with torch.no_grad():
            model(x)
    before, after = (
        [float((a - b).square().mean()) for a, b in zip(seen[name], seen["wanted"], strict=True)]
        for name in ("before", "after")
    )
    assert after[1] < 0.8 * before[1]
    assert after[2] < 0.8 * before[2]


def test_the_rest_may_be_cut_as_well(net: nn.Module, graph: ChannelGraph, x: Tensor) -> None:
    keep = {g: u for g, u in ChannelPlan.uniform(graph, 0.3).keep.items() if "blocks.1." not in g}
    small, done = refitted(net, graph, x, ChannelPlan(keep, {}, ("blocks.1",)))
    assert error(net, done.model, x) < 0.5 * error(net, small, x)
    again = reconstruct_layers(small, net, graph, ChannelPlan(keep, {}, ("blocks.1",)), x).model
    assert all(
        torch.equal(tensor, again.state_dict()[name])
        for name, tensor in done.model.state_dict().items()
    )


def by_moments(
    net: nn.Module, graph: ChannelGraph, moments: Moments, plan: ChannelPlan
) -> nn.Module:
    small = prune(net, graph, plan)
    return rebuild(small, moments.tensors_after(plan.kept_of(graph)), ())


def test_by_moments_a_branch_that_is_a_constant_is_made_up_for(x: Tensor) -> None:
    torch.manual_seed(0)
    net = Trunk().eval()
    nn.init.zeros_(net.blocks[1].n2.weight)
    graph = trace(net, x[:1])
    moments, plan = Moments(net, graph, x), ChannelPlan({}, {}, ("blocks.1",))
    before = error(net, by_moments(net, graph, moments, plan), x)
    moments.branches = BranchRefits.of(net, graph, x)
    assert error(net, by_moments(net, graph, moments, plan), x) < 1e-2 * before
    assert "head.bias" in moments.refitted


@pytest.mark.parametrize("drop", [("blocks.0",), ("blocks.1",), ("blocks.0", "blocks.1")])
def test_by_moments_layers_behind_make_up_for_a_part_of_any_branch(
    net: nn.Module, graph: ChannelGraph, x: Tensor, drop: tuple[str, ...]
) -> None:
    """Whatever else is cut: refitted weights make up for that as well."""
    even = ChannelPlan.uniform(graph, 0.3).keep
    gone = {group for name in drop for group in graph.removable[name].groups}
    for keep in ({}, {group: units for group, units in even.items() if group not in gone}):
        plan, moments = ChannelPlan(keep, {}, drop), Moments(net, graph, x)
        before = error(net, by_moments(net, graph, moments, plan), x)
        moments.branches = BranchRefits.of(net, graph, x)
        assert error(net, by_moments(net, graph, moments, plan), x) < before


@pytest.mark.parametrize("drop", ["blocks.0", "blocks.1", "blocks.2"])
def test_by_moments_a_branch_costs_about_what_it_costs_in_the_end(
    net: nn.Module, graph: ChannelGraph, x: Tensor, drop: str
) -> None:
    plan = ChannelPlan({}, {}, (drop,))
    moments = Moments(net, graph, x, branches=BranchRefits.of(net, graph, x))
    fresh = F.avg_pool2d(torch.randn(64, 3, 20, 20), 3, 1)
    quick = error(net, by_moments(net, graph, moments, plan), fresh)
    small, done = refitted(net, graph, x, plan)
    assert abs(quick - error(net, done.model, fresh)) < 0.05 * error(net, small, fresh)


def test_a_layer_that_takes_over_may_go_as_well(
    net: nn.Module, graph: ChannelGraph, x: Tensor
) -> None:
    """What blocks.1 makes up for when blocks.0 goes, blocks.2 has to when both do."""
    refits = BranchRefits.of(net, graph, x)
    first, second = (graph.removable[name] for name in ("blocks.0", "blocks.1"))
    both = refits.without([first, second])
    assert "blocks.1.b.weight" in refits.without([first]).tensors
    assert not [name for name in both.tensors if name.startswith(("blocks.0.", "blocks.1."))]
    assert set(both.layers) == {"blocks.2.a.weight", "blocks.2.b.weight"}
    assert "head.weight" not in both.tensors


def test_what_is_left_is_asked_for_the_pixels_that_the_original_gave(
    net: nn.Module, graph: ChannelGraph, x: Tensor
) -> None:
    small = prune(net, graph, ChannelPlan({}, {}, ("blocks.0",)))
    whole, left = (survey(model.eval(), (x[:2],)) for model in (net, small))
    sampling, met = Sampling(len(x), rows=500), whole.met_in(left)
    pairs = list(zip(whole.within(left).uses, met.uses, strict=True))
    assert any(one.call != other.call for one, other in pairs)
    for one, other in pairs:
        if one.kind != "norm":
            same = [sampling.positions(use, len(x)).where for use in (one, other)]
            assert torch.equal(*same), one.name

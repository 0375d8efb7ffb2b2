"""Convolutions by groups lose whole groups where a group norm leaves nothing else to cut."""

from __future__ import annotations

import pytest
import torch
from test_never_wrong import Net, X, assert_never_wrong, weight
from test_random_nets import random_plan
from torch import nn
from torch.nn import functional as F

from stages.prune import prune
from stages.trace import trace


def by_groups(groups: int, width: int = 16) -> nn.Conv2d:
    return nn.Conv2d(16, width, 3, padding=1, groups=groups)


def bottleneck(groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(16, 16, 1), nn.GroupNorm(4, 16), nn.ReLU(), by_groups(groups),
        nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.GroupNorm(4, 16),
    )  # fmt: skip


WHOLE = {
    "as many groups": Net(lambda m, y: m.n(m.g(y)), g=by_groups(4), n=nn.GroupNorm(4, 16)),
    "more groups": Net(lambda m, y: m.n(m.g(y)), g=by_groups(8), n=nn.GroupNorm(4, 16)),
    "normalised first": Net(lambda m, y: m.g(m.n(y)), g=by_groups(4), n=nn.GroupNorm(4, 16)),
    "twice as wide": Net(
        lambda m, y: m.n(m.g(y)), width=32, g=by_groups(4, 32), n=nn.GroupNorm(4, 32)),
    "transposed": Net(
        lambda m, y: m.n(m.g(y)), g=nn.ConvTranspose2d(16, 16, 1, groups=4),
        n=nn.GroupNorm(4, 16)),
    "transposed, half as wide": Net(
        lambda m, y: m.n(m.g(y)), width=8, g=nn.ConvTranspose2d(16, 8, 1, groups=4),
        n=nn.GroupNorm(4, 8)),
    "attributes": Net(
        lambda m, y: F.group_norm(F.conv2d(y, m.w, groups=m.k), m.k), w=weight(16, 4, 1, 1), k=4),
    "other attributes": Net(
        lambda m, y: F.group_norm(F.conv2d(y, m.w, groups=m.k), m.j), w=weight(16, 2, 1, 1), k=8,
        j=4),
    "added to what came": Net(
        lambda m, y: y + m.n(m.g(y)), g=by_groups(4), n=nn.GroupNorm(4, 16)),
    "in two blocks": Net(
        lambda m, y: m.two(m.one(y)).relu(), one=bottleneck(4), two=bottleneck(4)),
}  # fmt: skip
POSITIONS = {
    "no norm": (Net(lambda m, y: m.g(y), g=by_groups(4)), 4),
    "batch norm": (Net(lambda m, y: m.n(m.g(y)), g=by_groups(4), n=nn.BatchNorm2d(16)), 4),
    "shuffled": (
        Net(lambda m, y: m.n(F.channel_shuffle(m.g(y), 4)), g=by_groups(4), n=nn.GroupNorm(4, 16)),
        4,
    ),
    "fewer groups": (Net(lambda m, y: m.n(m.g(y)), g=by_groups(2), n=nn.GroupNorm(4, 16)), 2),
}
STAY = {
    "a number of groups": Net(
        lambda m, y: F.group_norm(F.conv2d(y, m.w, groups=4), 4), w=weight(16, 4, 1, 1)),
    "groups across": Net(lambda m, y: m.n(m.g(y)), g=by_groups(4), n=nn.GroupNorm(1, 16)),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_whole_groups_go(name: str) -> None:
    net = WHOLE[name].eval()
    assert_never_wrong(net, opens=("a", "b"))
    graph = trace(net, X)
    assert not [group for group in graph.groups if group.size == 1]


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_go_where_they_can(name: str) -> None:
    net, units = POSITIONS[name]
    assert_never_wrong(net.eval(), opens=("g", "b"))
    graph = trace(net, X)
    assert graph["g"].size == units
    small = prune(net, graph, random_plan(graph, 0))
    assert small.g.groups == net.g.groups


@pytest.mark.parametrize("name", STAY)
def test_what_holds_groups_together_stays(name: str) -> None:
    net = STAY[name].eval()
    assert_never_wrong(net)
    groups = trace(net, X)
    kept = [group for group in groups.groups if group.id in ("g", "w") and not group.prunable]
    assert kept


def test_both_counts_follow() -> None:
    net = WHOLE["as many groups"].eval()
    graph = trace(net, X)
    small = prune(net, graph, random_plan(graph, 2))
    left = small.a.out_channels // 4
    assert (small.g.groups, small.n.num_groups) == (left, left) != (4, 4)
    assert small(torch.randn(1, 3, 8, 8)).shape == (1, 5)

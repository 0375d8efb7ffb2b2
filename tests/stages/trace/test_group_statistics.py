"""Statistics over blocks of channels, by hand: whole blocks go where their number can follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_never_wrong import Net, X, assert_never_wrong
from test_random_nets import random_plan
from torch import nn

from stages.prune import prune
from stages.trace import trace


def group_std(y: torch.Tensor, groups: int, *, flat: bool = False) -> torch.Tensor:
    b, c, h, w = y.shape
    assert c % groups == 0
    blocks = y.reshape(b, groups, -1) if flat else y.reshape(b, groups, c // groups, h, w)
    over = (2,) if flat else (2, 3, 4)
    std = blocks.var(dim=over, unbiased=False, keepdim=True).add(1e-5).sqrt()
    return std.expand(blocks.shape).reshape(b, c, h, w)


class EvoNorm(nn.Module):
    """EvoNorm-S0 (Liu et al., 2020); `how` it keeps its number of groups."""

    def __init__(self, how: str = "groups", width: int = 16, groups: int = 4) -> None:
        super().__init__()
        self.how, self.number_of = how, {"groups": groups}
        self.v, self.weight = (nn.Parameter(torch.rand(width) + 0.5) for _ in range(2))
        self.bias = nn.Parameter(torch.randn(width))
        if how in ("groups", "num_groups"):
            setattr(self, how, groups)
        if how == "list":
            self.shape = [1, groups]

    def counted(self) -> int:
        if self.how == "list":
            return self.shape[1]
        return 4 if self.how == "number" else getattr(self, self.how)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        groups = self.number_of["groups"] if self.how == "dict" else self.counted()
        v, weight, bias = (p.view(1, -1, 1, 1) for p in (self.v, self.weight, self.bias))
        return y * (y * v).sigmoid() / group_std(y, groups) * weight + bias


def by_groups() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3, padding=1, groups=4)


def block(width: int, groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(16, width, 1), EvoNorm(width=width, groups=groups), nn.Conv2d(width, 16, 1)
    )


FOLLOW = {
    "an attribute": Net(lambda m, y: m.n(y), n=EvoNorm()),
    "of another name": Net(lambda m, y: m.n(y), n=EvoNorm("num_groups")),
    "in a list": Net(lambda m, y: m.n(y), n=EvoNorm("list")),
    "twice": Net(lambda m, y: m.n(m.n(y).tanh()), n=EvoNorm()),
    "by rows": Net(lambda m, y: y / group_std(y, m.k, flat=True), k=8),
    "of the network": Net(lambda m, y: y / group_std(y, m.k), k=4),
    "in blocks": Net(lambda m, y: m.n(y), n=nn.Sequential(block(24, 6), block(12, 4))),
    "blocks of one": Net(lambda m, y: m.two(m.one(y)), one=EvoNorm(groups=16), two=EvoNorm()),
    "added to what came": Net(lambda m, y: y + m.n(m.c(y)), n=EvoNorm(), c=nn.Conv2d(16, 16, 1)),
    "before groups": Net(lambda m, y: m.g(m.n(y)), n=EvoNorm(), g=by_groups()),
    "behind groups": Net(lambda m, y: m.n(m.g(y)), n=EvoNorm(), g=by_groups()),
    "beside a group norm": Net(
        lambda m, y: m.n(y) + m.o(y), n=EvoNorm(), o=nn.GroupNorm(4, 16)),
}  # fmt: skip
STAY = {
    "a number": Net(lambda m, y: m.n(y), n=EvoNorm("number")),
    "in a dict": Net(lambda m, y: m.n(y), n=EvoNorm("dict")),
    "a factor too": Net(lambda m, y: m.n(y) * m.n.groups, n=EvoNorm()),
    "a root too": Net(lambda m, y: m.n(y) / m.n.groups**0.5, n=EvoNorm()),
    "of all channels": Net(lambda m, y: m.n(y), n=EvoNorm(groups=1)),
    "beside other blocks": Net(
        lambda m, y: y / group_std(y, m.k) * y[:, : y.shape[1] // 2].mean(1, keepdim=True), k=4),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOW)
def test_whole_blocks_go(name: str) -> None:
    net = FOLLOW[name].eval()
    assert_never_wrong(net, opens=("a", "b"))
    graph = trace(net, X)
    assert {group.size * group.channels_per_unit for group in graph.prunable} >= {16, 6}


@pytest.mark.parametrize("name", STAY)
def test_blocks_whose_number_stays_or_means_more_keep_all_channels(name: str) -> None:
    net = STAY[name].eval()
    assert_never_wrong(net)
    assert not trace(net, X)["a"].prunable


def counts(net: Any) -> tuple[int, int]:
    return net.n.groups, net.a.out_channels


def test_the_number_of_blocks_follows() -> None:
    net = FOLLOW["an attribute"].eval()
    graph = trace(net, X)
    assert (graph["a"].size, graph["a"].channels_per_unit) == (4, 4)
    plan = random_plan(graph, 2)
    left = len(plan.keep["a"])
    assert counts(prune(net, graph, plan)) == (left, 4 * left) != counts(net) == (4, 16)

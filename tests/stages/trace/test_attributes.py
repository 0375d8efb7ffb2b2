"""Sizes that modules keep as plain numbers follow their width where a trial proves it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from test_never_wrong import Net, X, assert_never_wrong, weight
from test_random_nets import random_plan
from torch import nn
from torch.nn import functional as F

from pipeline.channels.graph import ChannelGraph
from stages.prune import prove, prune
from stages.trace import trace

GLOBAL = 8


class Part(nn.Module):
    """`form(self, y)` with what it is given as attributes."""

    def __init__(self, form: Any, **parts: Any) -> None:
        super().__init__()
        self.form = form
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.form(self, y)


class Sizes:
    """Sizes kept in an object that is no module."""

    def __init__(self) -> None:
        self.width = 8


class Half(nn.Module):
    """The size is a property of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.c = 16, conv(8)

    @property
    def half(self) -> int:
        return self.channels // 2

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        one, other = y.split(self.half, 1)
        return torch.cat([one, self.c(other)], 1)


class DualPath(nn.Module):
    """Two blocks of a dual path network: the first `c` channels add up, the others pile up."""

    class Block(nn.Module):
        def __init__(self, width: int, c: int, more: int) -> None:
            super().__init__()
            self.c, self.conv = c, nn.Conv2d(width, c + more, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            added = x[:, : self.c] + y[:, : self.c]
            return torch.cat([added, x[:, self.c :], y[:, self.c :]], 1)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = self.Block(16, 10, 4), self.Block(20, 10, 4)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(y))


def conv(width: int, out: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(width, out or width, 3, padding=1)


def half_through(m: Any, pieces: Any) -> torch.Tensor:
    one, other = pieces
    return torch.cat([one, m.c(other)], 1)


def scales(m: Any, y: torch.Tensor) -> torch.Tensor:
    """A block of Res2Net."""
    pieces, done = y.split(m.size, 1), []
    for piece in pieces:
        done.append(m.c(piece if not done else piece + done[-1]))
    return torch.cat(done, 1)


def res2(width: int = 4) -> Part:
    return Part(scales, size=width, c=conv(width))


FOLLOW = {
    "split by a width": Net(scales, size=4, c=conv(4)),
    "split, in a block": Net(lambda m, y: m.n(y), n=res2()),
    "split, in blocks": Net(lambda m, y: m.n(y), n=nn.Sequential(res2(), nn.ReLU(), res2(8))),
    "split, run twice": Net(lambda m, y: m.n(m.n(y).tanh()), n=res2()),
    "split by an entry": Net(
        lambda m, y: half_through(m, y.split(m.w[1], 1)), w=[3, 8], c=conv(8)),
    "half a width": Net(
        lambda m, y: half_through(m, y.split(m.channels // 2, 1)), channels=16, c=conv(8)),
    "half a property": Net(lambda m, y: m.n(y), n=Half()),
    "groups": Net(lambda m, y: F.conv2d(y, m.k, groups=m.n), k=weight(16, 1, 1, 1), n=16),
    "groups, in a block": Net(
        lambda m, y: m.n(y), n=Part(
            lambda m, y: F.conv2d(y, m.k, groups=m.n), n=16, k=weight(16, 1, 1, 1))),
    "sizes": Net(
        lambda m, y: half_through(m, y.split([m.one, m.two], 1)), one=5, two=11, c=conv(11)),
    "equal sizes": Net(
        lambda m, y: half_through(m, y.split([m.one, m.two], 1)), one=8, two=8, c=conv(8)),
    "equal sizes, crosswise": Net(
        lambda m, y: half_through(m, y.split([m.two, m.one], 1)), one=8, two=8, c=conv(8)),
    "one size twice": Net(
        lambda m, y: half_through(m, y.split([m.one, m.one], 1)), one=8, c=conv(8)),
    "a list of sizes": Net(
        lambda m, y: half_through(m, y.split(m.sizes, 1)), sizes=[7, 9], c=conv(9)),
    "a list of equal sizes": Net(
        lambda m, y: half_through(m, y.split(m.sizes, 1)), sizes=[8, 8], c=conv(8)),
    "a tuple of sizes": Net(
        lambda m, y: half_through(m, y.split(m.sizes, 1)), sizes=(13, 3), c=conv(3)),
    "points": Net(
        lambda m, y: half_through(m, (y[:, : m.n], y[:, m.n :])), n=5, c=conv(11)),
    "points from the end": Net(
        lambda m, y: half_through(m, (y[:, : -m.n], y[:, -m.n :])), n=5, c=conv(5)),
    "narrow": Net(
        lambda m, y: half_through(m, (y[:, : m.n], y.narrow(1, m.n, m.k))), n=5, k=11, c=conv(11)),
    "one piece alone": Net(lambda m, y: y[:, : m.n], n=12, width=12),
    "a view": Net(
        lambda m, y: y.view(y.shape[0], 2, m.half, 8, 8).flip(1).flatten(1, 2), half=8),
    "another width": Net(
        lambda m, y: half_through(
            m, (lambda z: (y[:, : z.shape[1]] + z, y[:, z.shape[1] :]))(m.z(y))),
        z=conv(16, 5), c=conv(11)),
    "dual path": Net(lambda m, y: m.n(y), n=DualPath(), width=24),
}  # fmt: skip
STAY = {
    "a closure": Net(lambda m, y, n=8: half_through(m, y.split(n, 1)), c=conv(8)),
    "a global": Net(lambda m, y: half_through(m, y.split(GLOBAL, 1)), c=conv(8)),
    "a dict": Net(lambda m, y: half_through(m, y.split(m.w["a"], 1)), w={"a": 8}, c=conv(8)),
    "a nested list": Net(
        lambda m, y: half_through(m, y.split(m.w[0][1], 1)), w=[[3, 8]], c=conv(8)),
    "an object": Net(lambda m, y: half_through(m, y.split(m.s.width, 1)), s=Sizes(), c=conv(8)),
    "a float": Net(lambda m, y: half_through(m, y.split(int(m.w), 1)), w=8.0, c=conv(8)),
    "not read": Net(lambda m, y: half_through(m, y.split(8, 1)), kernel=8, c=conv(8)),
    "points not read": Net(
        lambda m, y: half_through(m, (y[:, :8], y[:, 8:])), kernel=8, c=conv(8)),
    "a scale too": Net(lambda m, y: scales(m, y) * m.size, size=4, c=conv(4)),
    "a root too": Net(
        lambda m, y: half_through(m, (y[:, : m.n], y[:, m.n :])) / math.sqrt(m.n), n=5, c=conv(11)),
    "a branch too": Net(
        lambda m, y: scales(m, y).sin() if m.size % 4 else scales(m, y), size=4, c=conv(4)),
    "a loop too": Net(
        lambda m, y: [y := y.sin() for _ in range(m.size)] and scales(m, y), size=4, c=conv(4)),
    "padding too": Net(
        lambda m, y: F.pad(scales(m, y), [m.size // 4] * 4), size=4, c=conv(4)),
}  # fmt: skip
NEVER_WRONG = {
    "a common divisor": Net(
        lambda m, y: F.group_norm(y, math.gcd(m.channels, 4), m.s, m.t), channels=16,
        s=weight(16), t=weight(16)),
    "at most": Net(
        lambda m, y: half_through(m, y.split(min(m.size, 8), 1)), size=8, c=conv(8)),
    "at least": Net(
        lambda m, y: half_through(m, (y[:, : max(m.n, 4)], y[:, max(m.n, 4) :])), n=8, c=conv(8)),
    "rounded": Net(
        lambda m, y: half_through(m, (y[:, : m.n // 4 * 4], y[:, m.n // 4 * 4 :])), n=8, c=conv(8)),
    "two reads of one": Net(
        lambda m, y: half_through(m, (y[:, : m.n], y[:, m.n :])) * F.adaptive_avg_pool2d(
            m.z(y)[:, : m.n].mean(1, keepdim=True), 1), n=8, c=conv(8), z=conv(16, 12)),
    "points that overlap": Net(
        lambda m, y: torch.cat([y[:, : m.n], y[:, m.k :]], 1), n=10, k=6, width=20),
    "more than a width": Net(lambda m, y: y[:, : m.n], n=40),
    "a count of blocks": Net(
        lambda m, y: y.view(y.shape[0], m.n, -1, 8, 8).flip(1).flatten(1, 2), n=4),
    "another width, no sum": Net(
        lambda m, y: torch.cat([y[:, : m.z(y).shape[1]], m.z(y)], 1), z=conv(16, 5), width=10),
}  # fmt: skip


SMALL = {
    "a number": lambda m, y: (y[:, :2], y[:, 2:]),
    "half": lambda m, y: (y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]),
    "half, rounded up": lambda m, y: (y[:, : (y.shape[1] + 1) // 2], y[:, (y.shape[1] + 1) // 2 :]),
    "a third": lambda m, y: (y[:, : y.shape[1] // 3], y[:, y.shape[1] // 3 :]),
    "a point": lambda m, y: (y[:, : m.n], y[:, m.n :]),
    "half an attribute": lambda m, y: (y[:, : m.k // 2], y[:, m.k // 2 :]),
    "a difference": lambda m, y: (y[:, : m.k - m.n], y[:, m.k - m.n :]),
    "blocks": lambda m, y: F.group_norm(y, m.k // 2).split(y.shape[1] // 2, 1),
    "a number of blocks": lambda m, y: F.group_norm(y, 2).split(y.shape[1] // 2, 1),
}  # fmt: skip


def attributes(graph: ChannelGraph) -> set[str]:
    """Followed attributes other than those of torch's own layers."""
    known = {"in_channels", "out_channels", "in_features", "out_features"}
    return {width.attribute for width in graph.widths} - known


@pytest.mark.parametrize("name", FOLLOW)
def test_sizes_follow_their_width(name: str) -> None:
    net = FOLLOW[name].eval()
    before = copy.deepcopy(net)
    assert_never_wrong(net, opens=("a", "b"))
    again = ChannelGraph.from_json(trace(net, X).to_json())
    assert again.widths == trace(before, X).widths  # the network itself is as it was
    assert prove(net, again, random_plan(again, 0), [X]).relative < 1e-9


@pytest.mark.parametrize("name", STAY)
def test_sizes_that_no_attribute_holds_or_that_mean_more_stay(name: str) -> None:
    net = STAY[name].eval()
    assert_never_wrong(net)
    graph = trace(net, X)
    assert not graph["a"].prunable
    assert not attributes(graph)


@pytest.mark.parametrize("name", NEVER_WRONG)
def test_doubtful_sizes(name: str) -> None:
    assert_never_wrong(NEVER_WRONG[name].eval())


@pytest.mark.parametrize("width", [4, 6, 12])
@pytest.mark.parametrize("name", SMALL)
def test_few_channels_hide_nothing(name: str, width: int) -> None:
    """Where a cut takes one channel or two, a wrong reading may fit by rounding."""
    pieces, n = SMALL[name], width // 2

    def form(m: Any, y: torch.Tensor) -> torch.Tensor:
        return half_through(m, pieces(m, m.z(y).relu()))

    with torch.no_grad():
        rest = pieces(Part(form, n=n, k=width), torch.zeros(1, width, 1, 1))[1].shape[1]
    parts = {"z": conv(16, width), "c": conv(rest), "n": n, "k": width}
    assert_never_wrong(Net(form, width=width, **parts).eval(), opens=())


def test_pieces_lose_units_for_themselves() -> None:
    graph = trace(FOLLOW["sizes"].eval(), X)
    assert (graph["a"].size, graph["a#2"].size) == (5, 11)


def test_copies_hold_the_new_sizes_in_the_same_container() -> None:
    for name, kind in (("a list of sizes", list), ("a tuple of sizes", tuple)):
        net = FOLLOW[name].eval()
        graph = trace(net, X)
        small = prune(net, graph, random_plan(graph, 1))
        assert type(small.sizes) is kind
        assert sum(small.sizes) == small.a.out_channels < 16
        assert sum(net.sizes) == 16

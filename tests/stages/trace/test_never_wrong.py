"""Forms that look prunable and are not: whatever trace opens, every cut of it is the silenced net.

Each kind comes with neighbours. The network is conv `a`, the form, conv `b`, pooling, `head`;
nothing in a form may keep `b` from being cut.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_random_nets import random_plan
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from pipeline.errors import UsageError
from stages.prune import prove, prove_order, prune
from stages.trace import trace

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Form = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """`form(self, y)` between two convolutions; `leave` makes the output."""

    def __init__(
        self, form: Form, *, width: int = 16, leave: Form = lambda m, y: y, **parts: Any
    ) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(width, 6, 3, padding=1)
        self.head, self.form, self.leave = nn.Linear(6, 5), form, leave
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.form(self, self.a(x).relu())
        return self.leave(self, self.head(self.b(y).relu().mean((2, 3))))


class OwnNorm(nn.Module):
    """A group norm of one's own, the number of groups in an attribute, a list or a tensor size."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.count, self.counts = how, 4, [1, 4]
        self.weight, self.bias = nn.Parameter(torch.rand(16) + 0.5), nn.Parameter(torch.randn(16))
        self.register_buffer("template", torch.zeros(4))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        groups = {
            "attribute": self.count,
            "list": self.counts[1],
            "buffer": self.template.shape[0],
            "width": y.shape[1] // 4,
            "gcd": math.gcd(y.shape[1], 8),
        }[self.how]
        return F.group_norm(y, groups, self.weight, self.bias)


def by_hand(m: Any, y: torch.Tensor) -> torch.Tensor:
    blocks = y.view(y.shape[0], 4, -1)
    blocks = (blocks - blocks.mean(2, keepdim=True)) * 3
    return blocks.view(y.shape)


def odd_or_even(y: torch.Tensor) -> torch.Tensor:
    return F.relu6(y) if y.size(1) % 2 == 0 else y


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))


def two_uses(pieces: Callable[[Any], Any]) -> Form:
    def form(m: Any, y: torch.Tensor) -> torch.Tensor:
        one, other = pieces(m.w)[:2]
        return torch.cat([F.conv2d(y, one), 2 * F.conv2d(y, other)], 1)

    return form


def on_halves(m: Any, y: torch.Tensor) -> torch.Tensor:
    left, right = y.chunk(2, 1)
    one, other = m.w.chunk(2, 1)
    return F.conv2d(left, one) + F.conv2d(right.tanh(), other)


NORMS = {
    "functional": Net(lambda m, y: F.group_norm(y, 4)),
    "functional, one group": Net(lambda m, y: F.group_norm(y, 1)),
    "functional, by width": Net(lambda m, y: F.group_norm(y, y.shape[1] // 4)),
    "functional, by gcd": Net(lambda m, y: F.group_norm(y, math.gcd(y.shape[1], 6))),
    **{how: Net(lambda m, y: m.n(y), n=OwnNorm(how))
       for how in ("attribute", "list", "buffer", "width", "gcd")},
    "own, nested": Net(
        lambda m, y: m.n(y), n=nn.Sequential(nn.Identity(), nn.Sequential(OwnNorm("attribute")))),
    "own, twice": Net(lambda m, y: m.n(m.n(y) + 1), n=OwnNorm("attribute")),
    "by hand": Net(by_hand),
    "a group norm": Net(lambda m, y: m.n(y), n=nn.GroupNorm(4, 16)),
    "instance norm of a view": Net(
        lambda m, y: F.instance_norm(y.view(y.shape[0], 4, -1, 8)).view(y.shape)),
    "channel shuffle": Net(lambda m, y: F.channel_shuffle(y, 4)),
    "channel shuffle, by gcd": Net(lambda m, y: F.channel_shuffle(y, math.gcd(y.shape[1], 8))),
}  # fmt: skip
WEIGHTS = {
    "chunk": Net(two_uses(lambda w: w.chunk(2)), w=weight(16, 16, 1, 1)),
    "chunk of three": Net(two_uses(lambda w: w.chunk(3)), width=12, w=weight(18, 16, 1, 1)),
    "split by a size": Net(two_uses(lambda w: w.split(8)), w=weight(16, 16, 1, 1)),
    "split by sizes": Net(two_uses(lambda w: w.split([4, 12])), w=weight(16, 16, 1, 1)),
    "slices": Net(two_uses(lambda w: (w[:8], w[8:])), w=weight(16, 16, 1, 1)),
    "slices, by width": Net(
        two_uses(lambda w: (w[: w.shape[0] // 2], w[w.shape[0] // 2 :])), w=weight(16, 16, 1, 1)),
    "overlapping slices": Net(two_uses(lambda w: (w[:8], w[4:12])), w=weight(16, 16, 1, 1)),
    "every other": Net(two_uses(lambda w: (w[::2], w[1::2])), w=weight(16, 16, 1, 1)),
    "narrow": Net(
        two_uses(lambda w: (w.narrow(0, 0, 8), w.narrow(0, 8, 8))), w=weight(16, 16, 1, 1)),
    "view": Net(two_uses(lambda w: w.view(2, 8, *w.shape[1:])), w=weight(16, 16, 1, 1)),
    "view, by width": Net(
        two_uses(lambda w: w.view(2, w.shape[0] // 2, *w.shape[1:])), w=weight(16, 16, 1, 1)),
    "unbind": Net(two_uses(lambda w: w.unbind(0)), w=weight(2, 8, 16, 1, 1)),
    "select": Net(two_uses(lambda w: (w[0], w[1])), w=weight(2, 8, 16, 1, 1)),
    "twice": Net(two_uses(lambda w: (w, w)), width=16, w=weight(8, 16, 1, 1)),
    "transposed": Net(two_uses(lambda w: (w, w.transpose(0, 1))), width=32, w=weight(16, 16, 1, 1)),
    "chunks of chunks": Net(
        two_uses(lambda w: w.chunk(2)[1].chunk(2)), width=8, w=weight(16, 16, 1, 1)),
    "columns": Net(on_halves, width=12, w=weight(12, 16, 1, 1)),
    "a bias": Net(
        lambda m, y: y + torch.cat(m.w.chunk(2)[::-1]).view(1, -1, 1, 1), w=weight(16)),
    "a scale": Net(lambda m, y: y * m.w[:16].view(-1, 1, 1), w=weight(24)),
    "depthwise": Net(
        lambda m, y: torch.cat([F.conv2d(y, w, groups=y.shape[1]) for w in m.w.chunk(2)], 1),
        width=32, w=weight(32, 1, 1, 1)),
}  # fmt: skip
NUMBERS = {
    "roll": Net(lambda m, y: y.roll(y.shape[1] // 4, 3)),
    "roll of channels": Net(lambda m, y: y.roll(y.shape[1] // 4, 1)),
    "pad": Net(lambda m, y: F.pad(y, [y.shape[1] // 8] * 4)),
    "reflection pad": Net(lambda m, y: F.pad(y, [y.shape[1] // 8] * 4, mode="reflect")),
    "kernel": Net(lambda m, y: F.avg_pool2d(y, y.shape[1] // 8, 1)),
    "stride": Net(lambda m, y: y[:, :, :: y.shape[1] // 8]),
    "crop": Net(lambda m, y: y[:, :, : y.shape[1] // 4]),
    "size": Net(lambda m, y: F.interpolate(y, size=y.shape[1] // 2)),
    "pooled size": Net(lambda m, y: F.adaptive_avg_pool2d(y, y.shape[1] // 4)),
    "dilation": Net(
        lambda m, y: F.conv2d(y, m.w, dilation=y.shape[1] // 16), w=weight(16, 16, 3, 3)),
    "gcd of groups": Net(
        lambda m, y: F.conv2d(y, m.w, groups=math.gcd(y.shape[1], 4)), w=weight(16, 4, 1, 1)),
    "power": Net(lambda m, y: y ** (y.shape[1] // 8)),
    "square root": Net(lambda m, y: y / math.sqrt(y.shape[1])),
    "rounded": Net(lambda m, y: y * round(y.shape[1] / 3)),
    "top": Net(lambda m, y: y.topk(y.shape[1] // 4, dim=3).values),
    "positions": Net(lambda m, y: y + torch.arange(y.shape[1])[:8]),
    "branch on divisibility": Net(lambda m, y: y.sigmoid() if y.shape[1] % 3 else y.tanh()),
    "branch in a function": Net(lambda m, y: odd_or_even(y)),
    "switched on": Net(lambda m, y: y * (y.shape[1] % 3 == 0) + y),
    "branch on a threshold": Net(lambda m, y: y.tanh() if y.shape[1] > 15 else y.sigmoid()),
    "branch": Net(lambda m, y: y.sigmoid() if y.shape[1] % 8 else y),
    "loop": Net(lambda m, y: functools.reduce(lambda z, _: z.sin(), range(y.shape[1] // 8), y)),
    "a mean by hand": Net(lambda m, y: y - y.sum((2, 3), keepdim=True) / y[0].numel()),
}  # fmt: skip
KEPT = {
    "copy": lambda m, y: copy.copy(y),
    "deepcopy": lambda m, y: copy.deepcopy(y),
    "data": lambda m, y: y.data,
    "detach": lambda m, y: y.detach().clone(),
    "half a copy": lambda m, y: y + copy.copy(y),
    "in a list": lambda m, y: [copy.copy(y)],
    "in a dict": lambda m, y: {"logits": [y.clone()]},
    "a view": lambda m, y: y.view(-1),
    "softmax": lambda m, y: y.softmax(1),
    "classes": lambda m, y: y.argmax(1),
}


def assert_never_wrong(net: nn.Module, *, opens: tuple[str, ...] = ("b",)) -> None:
    """Ten random cuts of whatever is open equal the silenced network."""
    graph = trace(net, X)
    for seed in range(10):
        plan = random_plan(graph, seed)
        fresh = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        assert prove(net, graph, plan, [fresh]).relative < 1e-9, (plan.keep, graph.details())
    assert set(opens) <= {group.id for group in graph.prunable}, graph.details()


@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str) -> None:
    assert_never_wrong(NORMS[name].eval())


@pytest.mark.parametrize("name", WEIGHTS)
def test_parameters_cut_up_for_two_uses(name: str) -> None:
    assert_never_wrong(WEIGHTS[name].eval())


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_by_width(name: str) -> None:
    assert_never_wrong(NUMBERS[name].eval())


def test_chunks_of_a_weight_are_tied() -> None:
    graph = trace(WEIGHTS["chunk"].eval(), X)
    assert graph["w"].prunable
    assert graph["w"].slices(1)[0] == ("w", 0, (1, 9))


@pytest.mark.parametrize("name", KEPT)
def test_outputs_keep_all_classes(name: str) -> None:
    net = Net(lambda m, y: y, leave=KEPT[name]).eval()
    try:
        graph = trace(net, X)
    except UsageError:
        return  # said, not done wrong
    small = prune(net, graph, random_plan(graph, 0))
    with torch.no_grad():
        cut, whole = tree_leaves(small(X)), tree_leaves(net(X))
    assert [leaf.shape for leaf in cut] == [leaf.shape for leaf in whole]
    assert "b" in {group.id for group in graph.prunable}


def closing_over(how: str) -> nn.Module:
    """A network whose function reaches it by another way than `self`: a copy still runs the
    original's modules.
    """
    net = Net(lambda m, y: y)
    net.extra = nn.Conv2d(16, 16, 1)
    if how == "lambda":
        net.form = lambda m, y: net.extra(y)
    elif how == "list":
        held = [net.extra]
        net.form = lambda m, y: held[0](y)
    elif how == "default":
        net.form = lambda m, y, extra=net.extra: extra(y)
    elif how == "weight":
        kernel = net.extra.weight
        net.form = lambda m, y: F.conv2d(y, kernel)
    return net


@pytest.mark.parametrize("how", ["lambda", "list", "default", "weight"])
def test_functions_that_close_over_the_network(how: str) -> None:
    net = closing_over(how).eval()
    graph = trace(net, X)
    assert "extra" not in {group.id for group in graph.prunable}
    plan = random_plan(graph, 0)
    small = prune(net, graph, plan)
    with torch.no_grad():
        net.extra.weight.zero_()  # the copy is as little a copy as a deep copy of the network is
        assert small(X).shape == (2, 5)


def test_dropout_that_is_always_on_is_no_obstacle() -> None:
    net = Net(lambda m, y: F.dropout(y, 0.5, training=True)).eval()
    assert [group.id for group in trace(net, X).prunable] == ["a", "b"]


def test_zero_initialised_branches_hide_nothing() -> None:
    net = Net(
        lambda m, y: y + m.n(F.group_norm(m.c(y), 4)), c=nn.Conv2d(16, 16, 1), n=nn.BatchNorm2d(16)
    )
    nn.init.zeros_(net.n.weight)
    graph = trace(net.eval(), X)
    nn.init.ones_(net.n.weight)
    for seed in range(5):
        assert prove(net, graph, random_plan(graph, seed), [X]).relative < 1e-9


def test_a_size_that_one_group_breaks_keeps_no_other_group_of_a_big_network() -> None:
    def form(m: Any, y: torch.Tensor) -> torch.Tensor:
        shares = m.c(y).mean((2, 3)).softmax(1).reshape(y.shape[0], y.shape[1], 2)
        return y * shares.amax((1, 2))[:, None, None, None]

    big = nn.Sequential(nn.Linear(5, 1500), nn.ReLU(), nn.Linear(1500, 1500), nn.Linear(1500, 5))
    net = Net(form, leave=lambda m, y: m.big(y), c=nn.Conv2d(16, 32, 1), big=big).eval()
    graph = trace(net, X)
    assert {g.id for g in graph.prunable} == {"b", "head", "big.0", "big.2"}, graph.details()


class WritesInput(Net):
    """Normalises the images that it is given where they lie."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.sub_(0.3).mul_(2))


def test_forward_that_writes_into_its_input() -> None:
    net, images = WritesInput(lambda m, y: y).eval(), X.clone()
    graph = trace(net, images)
    assert [group.id for group in graph.prunable] == ["a", "b"]
    assert prove(net, graph, random_plan(graph, 0), [images]).relative < 1e-9
    prune(net, graph, random_plan(graph, 1), inputs=(images,))
    assert torch.equal(images, X)


def test_forward_that_counts_its_calls() -> None:
    net = Net(lambda m, y: (setattr(m, "calls", m.calls + 1), y.sin() if m.calls % 2 else y)[1])
    net.calls = 0
    graph = trace(net.eval(), X)
    assert prove(net, graph, random_plan(graph, 0), [X]).relative < 1e-9
    assert prove_order(net, graph, [X]).relative < 1e-9
    assert net.calls == 0


def test_view_of_a_parameter_that_is_kept_is_refused() -> None:
    net = Net(lambda m, y: F.conv2d(y, m.half), width=8, w=weight(16, 16, 1, 1)).eval()
    net.half = net.w[:8]
    with pytest.raises(
        UsageError, match=r"Net\.half cannot be copied: it is a view of a parameter"
    ):
        trace(net, X)


def test_a_group_that_another_place_reads_otherwise_is_no_culprit_here() -> None:
    def form(m: Any, y: torch.Tensor) -> torch.Tensor:
        shares = m.c(y).mean((2, 3)).softmax(1).reshape(y.shape[0], y.shape[1], 2)
        blocks = m.d(y).view(y.shape[0], -1, 4, 8, 8).tanh()
        return y * shares.amax((1, 2))[:, None, None, None] + m.e(blocks.flatten(1, 2))

    parts = {"c": nn.Conv2d(16, 32, 1), "d": nn.Conv2d(16, 16, 1), "e": nn.Conv2d(16, 16, 1)}
    net = Net(form, **parts).eval()
    assert_never_wrong(net, opens=("b", "d"))
    assert not trace(net, X)["a"].prunable

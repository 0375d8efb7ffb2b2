"""Values that reach no output freeze nothing; what writes into memory, or breaks a cut, does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_never_wrong import Net, X, assert_never_wrong, weight
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stages.prune import ChannelPlan, CostModel, prune
from stages.trace import trace
from stages.trace.capture.dispatch_capture import by_dispatch


def beside(compute: Any, **parts: Any) -> Net:
    """`compute(m, y)` is run, and forgotten."""

    def form(m: Any, y: torch.Tensor) -> torch.Tensor:
        compute(m, y)
        return y

    return Net(form, **parts).eval()


def logged(m: Any, y: torch.Tensor) -> None:
    m.last = {"mean": y.mean(1), "largest": y.amax(), "share": y.softmax(1).detach()}


DEAD = {
    "softmax": beside(lambda m, y: y.softmax(1)),
    "no rule": beside(lambda m, y: y.cummax(1)),
    "largest": beside(lambda m, y: y.topk(2, 1)),
    "logged": beside(logged),
    "width as a number": beside(lambda m, y: y.sum(1) / y.shape[1]),
    "normalised": beside(lambda m, y: nn.functional.layer_norm(y, y.shape[1:])),
    "branch": beside(lambda m, y: m.d(y).softmax(1), d=nn.Conv2d(16, 8, 3)),
    "long branch": beside(
        lambda m, y: m.d(y).softmax(1).cumsum(1), d=nn.Sequential(
            nn.Conv2d(16, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))),
    "scores": beside(lambda m, y: y.flatten(2) @ y.flatten(2).transpose(1, 2)),
    "weight statistics": beside(lambda m, y: (m.a.weight.mean(), m.a.weight.softmax(0))),
    "written to a copy": beside(lambda m, y: y.clone().softmax(1)),
    "unused results": Net(lambda m, y: y + torch.var_mean(y, 3, keepdim=True)[1]).eval(),
    "a size that fits by chance": beside(lambda m, y: y.view(y.shape[0], 16, -1)),
}  # fmt: skip


def added(m: Any, y: torch.Tensor) -> torch.Tensor:
    y.add_(y.softmax(1))
    return y


def through_a_view(m: Any, y: torch.Tensor) -> torch.Tensor:
    shares = y.softmax(1)
    y.view(y.shape)[:, :, 0].copy_(shares[:, :, 0])
    return y


def kept_in_place(m: Any, y: torch.Tensor) -> torch.Tensor:
    out = y + m.buf.view(-1, 1, 1)
    m.buf.copy_(y.mean((0, 2, 3)).cumsum(0))
    return out


def kept_anew(m: Any, y: torch.Tensor) -> torch.Tensor:
    out = y + m.buf.view(-1, 1, 1)
    m.buf = y.mean((0, 2, 3)).cumsum(0)
    return out


ALIVE = {
    "in place": Net(added).eval(),
    "through a view": Net(through_a_view).eval(),
    "a buffer": Net(kept_in_place, buf=nn.Buffer(torch.zeros(16))).eval(),
    "a new buffer": Net(kept_anew, buf=nn.Buffer(torch.zeros(16))).eval(),
    "a second output": Net(
        lambda m, y: setattr(m, "s", y.softmax(1).mean((2, 3))) or y,
        leave=lambda m, y: {"logits": y, "shares": [m.s]}).eval(),
    "a size that does not follow": beside(lambda m, y: y.view(y.shape[0], 16, 64)),
    "a weight that does not follow": beside(
        lambda m, y: y * torch.ones(16, 1, 1) + m.w, w=weight(16, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", DEAD)
def test_what_reaches_no_output_freezes_nothing(name: str) -> None:
    assert_never_wrong(DEAD[name], opens=("a", "b"))
    graph = trace(DEAD[name], X)
    assert set(graph.frozen) == {"head"}, graph.details()


@pytest.mark.parametrize("name", ALIVE)
def test_what_writes_or_breaks_a_cut_freezes(name: str) -> None:
    net = ALIVE[name]
    assert "a" in trace(net, X).frozen
    if "buffer" not in name:  # its second run is another
        assert_never_wrong(net)


def test_dead_calls_are_counted() -> None:
    net = DEAD["long branch"]
    graph = trace(net, X)
    plan = ChannelPlan.uniform(graph, 0.5)
    costs = CostModel(graph)
    for network, macs in (
        (net, costs.macs()),
        (prune(net, graph, plan), costs.macs(plan.counts())),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(X)
        assert macs * 2 * len(X) == counter.get_total_flops()


def test_which_calls_are_dead() -> None:
    captured = by_dispatch(DEAD["branch"], (X,))
    names = [captured.calls[position].name for position in sorted(captured.dead)]
    assert names == ["conv2d", "softmax"]
    assert not by_dispatch(ALIVE["a new buffer"], (X,)).dead


def test_layers_never_reached_constrain_nothing_and_count() -> None:
    net = Net(lambda m, y: y, spare=nn.Sequential(nn.Conv2d(16, 4, 3), nn.Conv2d(4, 9, 1))).eval()
    assert_never_wrong(net, opens=("a", "b"))
    graph = trace(net, X)
    plan = ChannelPlan.uniform(graph, 0.5)
    small, costs = prune(net, graph, plan), CostModel(graph)
    assert graph.unused == tuple(f"spare.{n}.{kind}" for n in (0, 1) for kind in ("weight", "bias"))
    assert costs.params(plan.counts()) == sum(tensor.numel() for tensor in small.parameters())
    assert all(map(torch.equal, small.spare.parameters(), net.spare.parameters()))

"""Weights that forward computes from parameters: what may be cut, what must stay, and that every
cut is the silenced network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_never_wrong import Net, X, assert_never_wrong, weight
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.prune import l1_unstructured
from torch.utils.flop_counter import FlopCounterMode

from stages.prune import ChannelPlan, CostModel, prove_order, prune
from stages.trace import ChannelGraph, trace


class Weighted(nn.Module):
    """A convolution by `compute(self)`; tensors that are no parameters become buffers."""

    def __init__(self, compute: Callable[[Any], Any], **tensors: torch.Tensor) -> None:
        super().__init__()
        self.compute = compute
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                setattr(self, name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        w = self.compute(self)
        return F.conv2d(y, w, padding=w.shape[-1] // 2, groups=y.shape[1] // w.shape[1])


def by(compute: Callable[[Any], Any], **tensors: torch.Tensor) -> Net:
    tensors = {"w": weight(16, 16, 3, 3), **tensors}
    return Net(lambda m, y: m.c(y), c=Weighted(compute, **tensors)).eval()


def layer(made: nn.Module, width: int = 16) -> Net:
    return Net(lambda m, y: m.c(y), width=width, c=made).eval()


def old(normalise: Callable[..., nn.Module], made: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and everywhere
        return normalise(made)


class Twice(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return 2 * w


class Masked(nn.Module):
    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.rand(shape) > 0.3).float())

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w * self.mask


def parametrised(made: nn.Conv2d) -> nn.Module:
    parametrize.register_parametrization(made, "weight", Twice())
    parametrize.register_parametrization(made, "weight", Masked(made.weight.shape))
    return made


def blurred(m: Any, y: torch.Tensor) -> torch.Tensor:
    return F.conv2d(y, m.k.expand(y.shape[1], 1, 3, 3), groups=y.shape[1], padding=1)


def standardised(w: torch.Tensor) -> torch.Tensor:
    return (w - w.mean((1, 2, 3), True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()


OPEN = {
    "sum": by(lambda m: m.w + m.w2, w2=weight(16, 16, 3, 3)),
    "difference of three": by(
        lambda m: m.w - m.w2 * m.w3, w2=weight(16, 16, 3, 3), w3=weight(16, 16, 3, 3)),
    "sum of kernels": by(lambda m: m.w + F.pad(m.w2, [1] * 4), w2=weight(16, 16, 1, 1)),
    "mask": by(lambda m: m.w * m.mask, mask=(torch.rand(16, 16, 3, 3) > 0.3).float()),
    "mask of rows": by(lambda m: m.w * m.mask, mask=torch.rand(16, 1, 1, 1)),
    "mask of columns": by(lambda m: m.w * m.mask, mask=torch.rand(16, 1, 1)),
    "mask of a kernel": by(lambda m: m.w * m.mask, mask=torch.rand(3, 3)),
    "mask that fills": by(
        lambda m: m.w.masked_fill(m.mask, 0), mask=torch.rand(16, 16, 3, 3) > 0.5),
    "mask that picks": by(
        lambda m: torch.where(m.mask, m.w, 0.0), mask=torch.rand(16, 16, 3, 3) > 0.5),
    "mask of torch's own": layer(l1_unstructured(nn.Conv2d(16, 16, 3), "weight", 0.3)),
    "quantised": by(
        lambda m: (m.w / m.s).round().clamp(-8, 7) * m.s, s=nn.Parameter(torch.rand(16, 1, 1, 1))),
    "outer product": by(
        lambda m: m.w.view(-1, 1, 1, 1) * m.w2.view(1, -1, 1, 1) * m.k,
        w=weight(16), w2=weight(16), k=weight(3, 3)),
    "low rank": by(
        lambda m: m.w + (m.u @ m.v)[:, :, None, None], w=weight(16, 16, 1, 1),
        u=weight(16, 4), v=weight(4, 16)),
    "with a computed bias": Net(
        lambda m, y: F.conv2d(y, m.w * 0.1, m.shift * 2), w=weight(16, 16, 3, 3),
        shift=weight(16)).eval(),
    "of a linear layer": Net(
        lambda m, y: F.linear(y.movedim(1, 3), m.w * m.s).movedim(3, 1),
        w=weight(16, 16), s=weight(16, 1)).eval(),
    "scaled": by(lambda m: m.w * 0.1),
    "scaled by a parameter": by(lambda m: m.w * m.s, s=weight(1)),
    "scaled rows": by(lambda m: m.w * m.s.view(-1, 1, 1, 1), s=weight(16)),
    "odd function": by(lambda m: torch.tanh(m.w)),
    "binary": by(lambda m: m.w.sign() * m.w.abs().sum((1, 2, 3), keepdim=True)),
    "rows of norm one": by(lambda m: m.w / m.w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)),
    "normalised rows": by(lambda m: F.normalize(m.w, dim=(1, 2, 3))),
    "spectral norm by hand": by(
        lambda m: m.w / (m.u @ (m.w.flatten(1) @ m.v)), u=torch.randn(16), v=torch.randn(144)),
    "softmax of a kernel": by(lambda m: m.w.flatten(2).softmax(-1).view_as(m.w) * m.w),
    "depthwise sum": by(
        lambda m: m.w + m.w2, w=weight(16, 1, 3, 3), w2=weight(16, 1, 3, 3)),
    "transposed": by(lambda m: (m.w + m.w2).transpose(0, 1), w2=weight(16, 16, 3, 3)),
    "weight norm": layer(parametrizations.weight_norm(nn.Conv2d(16, 16, 3))),
    "weight norm over all": layer(parametrizations.weight_norm(nn.Conv2d(16, 16, 3), dim=None)),
    "weight norm of columns": layer(parametrizations.weight_norm(nn.Conv2d(16, 16, 3), dim=1)),
    "weight norm, depthwise": layer(
        parametrizations.weight_norm(nn.Conv2d(16, 16, 3, groups=16))),
    "weight norm, grouped": layer(parametrizations.weight_norm(nn.Conv2d(16, 16, 3, groups=4))),
    "weight norm, transposed": layer(
        parametrizations.weight_norm(nn.ConvTranspose2d(16, 16, 3), dim=1)),
    "weight norm, old": layer(old(nn.utils.weight_norm, nn.Conv2d(16, 16, 3))),
    "weight norm, twice": layer(nn.Sequential(
        *(parametrizations.weight_norm(nn.Conv2d(16, 16, 3)) for _ in range(2)))),
    "spectral norm": layer(parametrizations.spectral_norm(nn.Conv2d(16, 16, 3))),
    "spectral norm, transposed": layer(
        parametrizations.spectral_norm(nn.ConvTranspose2d(16, 16, 3), dim=1)),
    "spectral norm, old": layer(old(nn.utils.spectral_norm, nn.Conv2d(16, 16, 3))),
    "parametrised": layer(parametrised(nn.Conv2d(16, 16, 3))),
    "parametrised, depthwise": layer(parametrised(nn.Conv2d(16, 32, 3, groups=16)), 32),
    "blur": Net(blurred, k=nn.Parameter(torch.rand(1, 1, 3, 3), False)).eval(),
    "blur by a buffer": Net(blurred, k=nn.Buffer(torch.rand(1, 1, 3, 3))).eval(),
}  # fmt: skip
KEPT = {
    "standardised": by(lambda m: standardised(m.w)),
    "standardised by batch norm": by(lambda m: F.batch_norm(
        m.w.reshape(1, len(m.w), -1), None, None, m.g, training=True).view_as(m.w), g=weight(16)),
    "least of a row": by(lambda m: m.w - m.w.amin((1, 2, 3), True)),
    "softmax of columns": by(lambda m: m.w.softmax(1)),
    "product of columns": by(lambda m: m.w * m.w.prod(1, True)),
}  # fmt: skip
KEPT_ROWS = {
    "standardised over rows": by(lambda m: m.w - m.w.mean(0, True)),
    "scaled by the largest": by(lambda m: m.w / m.w.abs().amax()),
    "softmax of rows": by(lambda m: m.w.softmax(0)),
    "sum of what was": by(lambda m: m.w.cumsum(0)),
    "sorted": by(lambda m: m.w.sort(0).values),
}


@pytest.mark.parametrize("name", OPEN)
def test_computed_weights_are_cut(name: str) -> None:
    net = OPEN[name]
    assert_never_wrong(net, opens=("a", "b"))
    graph = trace(net, X)
    assert all(group.prunable for group in graph.groups if group.id.startswith("c")), (
        graph.details()
    )
    assert prove_order(net, graph, [X]).relative < 1e-9


@pytest.mark.parametrize("name", OPEN)
def test_computed_weights_are_counted(name: str) -> None:
    net = OPEN[name]
    graph = trace(net, X)
    plan = ChannelPlan.uniform(graph, 0.5)
    small, costs = prune(net, graph, plan), CostModel(graph)
    for network, macs, params in (
        (net, costs.macs(), costs.params()),
        (small, costs.macs(plan.counts()), costs.params(plan.counts())),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(X)
        assert macs * 2 * len(X) == counter.get_total_flops()
        assert params == sum(tensor.numel() for tensor in network.parameters())


@pytest.mark.parametrize("name", KEPT)
def test_statistics_keep_the_inputs(name: str) -> None:
    net = KEPT[name]
    assert_never_wrong(net, opens=("b", "c.w"))
    reason = trace(net, X).frozen["a"]
    assert "c.w" in reason
    assert "fold_standardised_weights" in reason


@pytest.mark.parametrize("name", KEPT_ROWS)
def test_statistics_over_rows_keep_them(name: str) -> None:
    net = KEPT_ROWS[name]
    assert_never_wrong(net)
    assert "c.w" in trace(net, X).frozen


def test_inputs_that_are_not_zero_once_silenced_stay() -> None:
    """exp(0) = 1: the silenced network still reads the channel."""
    for open_, before in ((True, torch.relu), (False, torch.sigmoid)):
        made = Weighted(lambda m: m.w.exp(), w=weight(16, 16, 3, 3))
        net = Net(lambda m, y, before=before: m.c(before(y)), c=made).eval()
        assert_never_wrong(net)
        assert trace(net, X)["a"].prunable is open_


def test_a_kernel_repeated_as_often_as_written_stays() -> None:
    made = Weighted(lambda m: m.k.repeat(16, 1, 1, 1), k=torch.rand(1, 1, 3, 3))
    net = layer(made)
    assert_never_wrong(net)
    assert "a" in trace(net, X).frozen


def test_mirrored_rows_are_tied() -> None:
    net = by(lambda m: m.w + m.w.flip(0))
    assert_never_wrong(net, opens=("a", "b", "c.w"))
    group = trace(net, X)["c.w"]
    assert (group.size, group.channels_per_unit) == (8, 2)
    assert ("c.w", 0, (0, 15)) in group.slices(0)


def test_groups_are_named_after_the_layer() -> None:
    for name in ("weight norm", "weight norm, old", "spectral norm", "spectral norm, old",
                 "parametrised"):  # fmt: skip
        assert "c" in trace(OPEN[name], X)


def test_graph_with_divisors_survives_json() -> None:
    graph = trace(OPEN["weight norm, old"], X)
    assert graph.divisors == (("c.weight_v", 0),)
    assert ChannelGraph.from_json(graph.to_json()) == graph

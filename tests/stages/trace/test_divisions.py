"""Divisions: channels pass where a silenced one is not divided by zero, and stay where it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_never_wrong import Net, X, assert_never_wrong, weight
from torch import nn
from torch.nn import functional as F

from stages.trace import trace


def conv(out: int) -> nn.Conv2d:
    return nn.Conv2d(16, out, 1)


def rms(y: torch.Tensor, eps: Any) -> torch.Tensor:
    return y * (y.square().mean((2, 3), keepdim=True) + eps).rsqrt()


def evo(m: Any, y: torch.Tensor) -> torch.Tensor:
    deviation = y.var((2, 3), keepdim=True).add(1e-5).sqrt()
    return y / torch.maximum(deviation, y * m.v + 1e-3)


def generalised_mean(m: Any, y: torch.Tensor) -> torch.Tensor:
    return y * y.clamp(min=1e-4).pow(m.p).mean((2, 3), keepdim=True).pow(1 / m.p)


def hidden_zero(m: Any, y: torch.Tensor) -> torch.Tensor:
    z = m.q(y)
    return y / (z * 2 - z.exp() + 1)  # zero where z is, which no operator by itself shows


def positive(*shape: int) -> nn.Parameter:
    return nn.Parameter(weight(*shape).abs() + 0.5)


PASS: dict[str, tuple[Net, str]] = {
    "a magnitude and eps": (Net(lambda m, y: m.q(y) / (m.q(y).abs() + 1e-3), q=conv(16)), "q"),
    "filter response norm": (Net(lambda m, y: rms(y, 1e-6)), "a"),
    "filter response norm, eps learned": (Net(lambda m, y: rms(y, m.e.abs()), e=positive(1)), "a"),
    "evonorm": (Net(evo, v=weight(16, 1, 1)), "a"),
    "generalised mean": (Net(generalised_mean, p=positive(1)), "a"),
    "a scalar parameter": (Net(lambda m, y: y / m.t, t=nn.Parameter(torch.tensor(2.0))), "a"),
    "a parameter of one": (Net(lambda m, y: y / m.t, t=positive(1, 1, 1, 1)), "a"),
    "a parameter of rows": (Net(lambda m, y: y / m.t, t=positive(8, 1)), "a"),
    "a function of a parameter": (Net(lambda m, y: y / m.t.exp(), t=weight(16, 1, 1)), "a"),
    "a power": (Net(lambda m, y: (y + 1).pow(m.p), p=weight(16, 1, 1)), "a"),
    "softplus": (Net(lambda m, y: y / F.softplus(m.q(y)), q=conv(16)), "a"),
    "shares of positions": (
        Net(lambda m, y: y.sigmoid() / y.sigmoid().sum((2, 3), keepdim=True)), "a"),
    "a map": (Net(lambda m, y: y / (m.q(y).sigmoid() + 0.1), q=conv(1)), "a"),
    "a logarithm with eps": (Net(lambda m, y: (y + 1e-4).log()), "a"),
    "a remainder": (Net(lambda m, y: m.q(y).fmod(y + 0.5), q=conv(16)), "a"),
}  # fmt: skip
STAY: dict[str, tuple[Net, str]] = {
    "itself": (Net(lambda m, y: m.q(y) / m.q(y).square(), q=conv(16)), "q"),
    "a deviation": (Net(lambda m, y: m.q(y) / m.q(y).std((2, 3), keepdim=True), q=conv(16)), "q"),
    "filter response norm, eps by channel": (
        Net(lambda m, y: rms(y, m.e.abs()), e=positive(16, 1, 1)), "a"),
    "a parameter of channels": (Net(lambda m, y: y / m.t, t=positive(16, 1, 1)), "a"),
    "a logarithm": (Net(lambda m, y: m.q(y).square().log(), q=conv(16)), "q"),
    "an inverse": (Net(lambda m, y: m.q(y).pow(-1), q=conv(16)), "q"),
    "a hidden zero": (Net(hidden_zero, q=conv(16)), "a"),
    "norms across channels": (Net(lambda m, y: y / (y.std(1, keepdim=True) + 1e-3)), "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", PASS)
def test_channels_pass(name: str) -> None:
    net, opens = PASS[name]
    assert_never_wrong(net.eval(), opens=("b", opens))


@pytest.mark.parametrize("name", STAY)
def test_channels_stay(name: str) -> None:
    net, stays = STAY[name]
    assert_never_wrong(net.eval())
    assert not trace(net, X)[stays].prunable

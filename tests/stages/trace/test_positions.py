"""Operators over positions let channels pass; over channels only sums of zeros do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_costs import assert_exact
from test_never_wrong import Net, X, assert_never_wrong, weight
from torch import nn
from torch.nn import functional as F

from stages.trace import trace

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")

Form = Callable[[Any, torch.Tensor], torch.Tensor]


def conv(out: int) -> nn.Conv2d:
    return nn.Conv2d(16, out, 1)


def windows(y: torch.Tensor) -> torch.Tensor:
    """Every 3 × 3 neighbourhood, along two last dimensions."""
    return F.pad(y, [1] * 4).unfold(2, 3, 1).unfold(3, 3, 1)


def per_image(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


def nearest(m: Any, y: torch.Tensor) -> torch.Tensor:
    best = y.flatten(2).topk(16, dim=2).indices
    return y.flatten(2).gather(2, best).unflatten(2, (4, 4))


def shared_best(m: Any, y: torch.Tensor) -> torch.Tensor:
    best = m.q(y).flatten(2).topk(16, dim=2).indices
    return torch.take_along_dim(y.flatten(2), best, 2).unflatten(2, (4, 4))


def attended(m: Any, y: torch.Tensor) -> torch.Tensor:
    """Efficient channel attention (Wang et al., 2020)."""
    shares = m.c(y.mean((2, 3)).unsqueeze(1)).sigmoid()
    return y * shares.squeeze(1)[:, :, None, None]


def spectrum(m: Any, y: torch.Tensor) -> torch.Tensor:
    filters = torch.view_as_complex(m.w)
    return torch.fft.irfft2(torch.fft.rfft2(y, norm="ortho") * filters, s=(8, 8), norm="ortho")


PASS: dict[str, tuple[Net, str]] = {
    "windows": (Net(lambda m, y: windows(y).amax((4, 5))), "a"),
    "patches": (
        Net(lambda m, y: F.fold(F.unfold(y, 2, stride=2).tanh(), (8, 8), 2, stride=2)), "a"),
    "patches, weighed": (
        Net(lambda m, y: (F.unfold(y, 3, padding=1).unflatten(1, (-1, 9)) * m.w).sum(2)
            .unflatten(2, (8, 8)), w=weight(9, 1)), "a"),
    "diagonal": (Net(lambda m, y: y + y.diagonal(0, 2, 3).unsqueeze(2)), "a"),
    "rolled": (Net(lambda m, y: torch.fft.fftshift(y.roll(3, 2), (2, 3)).rot90(1, (2, 3))), "a"),
    "a spectrum": (Net(spectrum, w=weight(16, 8, 5, 2)), "a"),
    "a spectrum of one filter": (Net(spectrum, w=weight(8, 5, 2)), "a"),
    "a spectrum's magnitude": (Net(lambda m, y: torch.fft.fft2(y).abs()), "a"),
    "a spectrum of rows": (
        Net(lambda m, y: torch.view_as_real(torch.fft.rfft(y, dim=2)).sum(-1)), "a"),
    "the largest": (Net(lambda m, y: y.topk(3, dim=3).values), "a"),
    "the second largest": (Net(lambda m, y: y.kthvalue(7, 3, keepdim=True).values * y), "a"),
    "picked": (Net(nearest), "a"),
    "picked for all channels": (Net(shared_best, q=conv(1)), "a"),
    "repeated": (Net(lambda m, y: y.repeat_interleave(2, 3)), "a"),
    "repeated channels": (Net(lambda m, y: y.repeat_interleave(2, 1), width=32), "a"),
    "odd channels": (Net(lambda m, y: y[:, 1::2], width=8), "a"),
    "even and odd channels": (Net(lambda m, y: y[:, ::2] * y[:, 1::2].tanh(), width=8), "a"),
    "the last of four": (Net(lambda m, y: y[:, 3::4], width=4), "a"),
    "rounded": (
        Net(lambda m, y: torch.fake_quantize_per_tensor_affine(y, 0.05, 10, 0, 255)), "a"),
    "softmax of positions": (Net(lambda m, y: y.flatten(2).softmax(2).view_as(y)), "a"),
    "a sum": (Net(lambda m, y: y + m.q(y).sum(1, keepdim=True), q=conv(12)), "q"),
    "a sum of squares": (
        Net(lambda m, y: y * per_image(m.q(y).square().sum((1, 2, 3)).sqrt()), q=conv(12)), "q"),
    "a norm": (Net(lambda m, y: F.normalize(y, dim=1)), "a"),
    "a sum of products": (
        Net(lambda m, y: y + (m.q(y) * y.sigmoid()).sum(1, keepdim=True), q=conv(16)), "a"),
    "a sum of a sum": (
        Net(lambda m, y: y + (m.q(y) + m.k(y).relu()).sum(1, keepdim=True), q=conv(12),
            k=conv(12)), "q"),
    "a sum after a norm": (
        Net(lambda m, y: y + m.n(m.q(y).sigmoid()).sum(1, keepdim=True), q=conv(12),
            n=nn.BatchNorm2d(12)), "q"),
    "a sum of two": (
        Net(lambda m, y: y + torch.cat([m.q(y), m.k(y)], 1).sum(1, keepdim=True), q=conv(12),
            k=conv(8)), "q"),
    "a sum of padded": (
        Net(lambda m, y: y + windows(m.q(y)).sum((1, 4, 5)).unsqueeze(1), q=conv(12)), "q"),
    "a sum of bounded": (
        Net(lambda m, y: y + F.hardtanh(m.q(y), -2, 3).clamp(max=1).sum(1, keepdim=True),
            q=conv(12)), "q"),
}  # fmt: skip
STAY: dict[str, tuple[Net, str]] = {
    "patches of channels": (
        Net(lambda m, y: m.q(y).unfold(1, 4, 4).mean(4), width=4, q=conv(16)), "q"),
    "a diagonal of channels": (
        Net(lambda m, y: y * m.q(y).diagonal(0, 1, 2).mean((1, 2)).view(-1, 1, 1, 1), q=conv(8)),
        "q"),
    "a spectrum of channels": (Net(lambda m, y: torch.fft.fft(y, dim=1).abs()), "a"),
    "a spectrum of everything": (
        Net(lambda m, y: torch.view_as_real(torch.fft.fftn(y)).sum(-1)), "a"),
    "the largest channels": (Net(lambda m, y: y.topk(4, 1).values, width=4), "a"),
    "a picked channel": (
        Net(lambda m, y: y * torch.gather(m.q(y), 3, m.q(y)[:, :1].argsort(3)), q=conv(5)), "q"),
    "picked channels": (
        Net(lambda m, y: torch.take_along_dim(y, y.argsort(1), 1)), "a"),
    "channels by a table": (
        Net(lambda m, y: y.repeat_interleave(torch.arange(16) % 2 + 1, 1), width=24), "a"),
    "channels from the middle": (Net(lambda m, y: y[:, 5::2], width=6), "a"),
    "channels that do not divide": (Net(lambda m, y: y[:, ::3], width=6), "a"),
    "softmax of channels": (Net(lambda m, y: y.softmax(1)), "a"),
    "neighbouring channels": (Net(attended, c=nn.Conv1d(1, 1, 3, padding=1, bias=False)), "a"),
    "neighbouring channels of a branch": (
        Net(lambda m, y: y + attended(m, m.q(y)).sum(1, keepdim=True), q=conv(12),
            c=nn.Conv1d(1, 1, 5, padding=2)), "q"),
    "every other channel": (
        Net(lambda m, y: m.c(y.movedim(1, 3)).movedim(3, 1), width=8,
            c=nn.Conv2d(8, 8, 1, stride=(1, 2))), "a"),
    "a mean": (Net(lambda m, y: y + m.q(y).mean(1, keepdim=True), q=conv(12)), "q"),
    "a mean by hand": (
        Net(lambda m, y: y + (lambda z: z.sum(1, keepdim=True) / z.shape[1])(m.q(y)), q=conv(12)),
        "q"),
    "a maximum": (Net(lambda m, y: y + m.q(y).amax(1, keepdim=True), q=conv(12)), "q"),
    "a deviation": (Net(lambda m, y: y + m.q(y).std(1, keepdim=True), q=conv(12)), "q"),
    "the norm of the smallest": (
        Net(lambda m, y: y + torch.linalg.vector_norm(m.q(y), -1, 1, True).tanh(), q=conv(12)),
        "q"),
    "a sum of shares": (
        Net(lambda m, y: y + m.q(y).sigmoid().sum(1, keepdim=True), q=conv(12)), "q"),
    "a sum with one": (Net(lambda m, y: y + (m.q(y) + 1).sum(1, keepdim=True), q=conv(12)), "q"),
    "a sum with a table of positions": (
        Net(lambda m, y: y + (m.q(y) + m.t).sum(1, keepdim=True), q=conv(12), t=weight(8, 8)),
        "q"),
    "a sum of padded with one": (
        Net(lambda m, y: y + F.pad(m.q(y), [1] * 4, value=1.0).sum(1, keepdim=True)[..., 2:, 2:],
            q=conv(12)), "q"),
    "a sum of bounded away": (
        Net(lambda m, y: y + m.q(y).clamp(min=0.1).sum(1, keepdim=True), q=conv(12)), "q"),
    "a sum of places": (
        Net(lambda m, y: y + m.q(y).flatten(2).topk(3, 2).indices.sum((1, 2)).view(-1, 1, 1, 1),
            q=conv(12)), "q"),
    "a sum after a norm without weights": (
        Net(lambda m, y: y + m.n(m.q(y).sigmoid()).sum(1, keepdim=True), q=conv(12),
            n=nn.BatchNorm2d(12, affine=False)), "q"),
}  # fmt: skip


def test_only_the_channels_whose_neighbours_meet_stay() -> None:
    graph = trace(STAY["neighbouring channels of a branch"][0], X)
    assert "its kernel runs along the channels" in graph["q"].reason
    assert graph["a"].prunable


@pytest.mark.parametrize("name", PASS)
def test_channels_pass(name: str) -> None:
    net, opens = PASS[name]
    assert_never_wrong(net.eval(), opens=("b", opens))
    assert_exact(net, torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("name", STAY)
def test_channels_stay(name: str) -> None:
    net, stays = STAY[name]
    assert_never_wrong(net.eval())
    reason = trace(net, X)[stays].reason
    assert reason
    # the check of a cut, which may overlook what is small, must not be needed
    assert name in ("a mean by hand",) or "does not follow" not in reason

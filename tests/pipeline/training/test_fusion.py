"""Batch norms fused into convolutions: the same answers, and none fused where that is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from pipeline.config.schema import ModelConfig
from pipeline.models import build_model
from pipeline.training.fusion import fuse_batchnorms
from pipeline.training.small_convolutions import use_small_convolutions


class Twice(nn.Module):
    """A convolution's result is read by a batch norm and by an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        return self.norm(made) + made


class Shared(nn.Module):
    """One batch norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.one(x)) + self.norm(self.two(x))


def _unsettled(network: nn.Module) -> nn.Module:
    """With statistics that a batch norm must apply, in eval mode."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.bias)
    return network.eval()


def _norms_left(network: nn.Module) -> int:
    """Batch norms that still compute something."""
    return sum(type(module) is nn.BatchNorm2d for module in network.modules())


@pytest.mark.parametrize("small", [False, True], ids=["as built", "small convolutions"])
def test_every_batchnorm_of_mobilenet_is_fused(small: bool) -> None:
    network = _unsettled(
        build_model(ModelConfig(source="mobilenet_v2"), in_channels=3, num_classes=10)
    )
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(x)
        if small:
            use_small_convolutions(network)
        fuse_batchnorms(network, x)
        torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-4)
    assert _norms_left(network) == 0


@pytest.mark.parametrize("kind", [Twice, Shared])
def test_what_cannot_be_fused_stays(kind: type[nn.Module]) -> None:
    network = _unsettled(kind())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = network(x)
        fuse_batchnorms(network, x)
        assert torch.equal(network(x), before)
    assert _norms_left(network) == 1


def test_without_weights_and_under_autocast() -> None:
    network = _unsettled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            fuse_batchnorms(network, x)
        torch.testing.assert_close(network(x), before)
    assert _norms_left(network) == 0


@pytest.mark.parametrize("norm", [weight_norm, parametrizations.weight_norm])
def test_a_weight_that_is_computed_stays(norm: Callable[[nn.Module], nn.Module]) -> None:
    network = _unsettled(nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = network(x)
        fuse_batchnorms(network, x)
        assert torch.equal(network(x), before)
    assert _norms_left(network) == 1

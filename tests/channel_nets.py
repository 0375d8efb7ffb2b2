"""A small network with the topologies that cutting must get right, and its graph.

A folder whose tests want the fixtures imports `net` and `graph` in its conftest.
"""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.channels.graph import ChannelGraph
from stages.trace import trace


class Small(nn.Module):
    """Two convolutions with batch norm, a depthwise one between them, dropout and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, bias=False)
        self.n = nn.BatchNorm2d(8)
        self.d = nn.Conv2d(8, 8, 3, groups=8)
        self.b = nn.Conv2d(8, 12, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.b(self.d(F.relu(self.n(self.a(x))))))
        return self.head(self.drop(x.mean((2, 3))))


class Auxiliary(Small):
    """A second head that only training uses, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.n(self.a(x)))
        logits = self.head(F.relu(self.b(self.d(features))).mean((2, 3)))
        return (logits, self.aux(features.mean((2, 3)))) if self.training else logits


def used_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm in use: statistics and weights away from their defaults."""
    layer = nn.BatchNorm2d(channels)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias)
    return layer


def small_net() -> Small:
    """With norms that are not those of a fresh network."""
    torch.manual_seed(0)
    net = Small()
    with torch.no_grad():
        net.n.weight.uniform_(0.5, 1.5)
        net.n.running_mean.normal_()
    return net


def small_graph(net: nn.Module) -> ChannelGraph:
    """Groups a (8 units), b (12 units), and head, which is frozen."""
    return trace(net, torch.randn(1, 3, 8, 8))


def digest(net: nn.Module) -> str:
    """Of all parameters and buffers."""
    whole = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


@pytest.fixture
def net() -> Small:
    return small_net()


@pytest.fixture
def graph(net: Small) -> ChannelGraph:
    return small_graph(net)

"""A cut network is a network like any other: it trains, is traced and cut again, and runs as
ONNX.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.torchvision_import import import_torchvision
from stages.export import export_onnx
from stages.prune import ChannelPlan, prove, prune
from stages.trace import trace

models = import_torchvision().models

# float32 keeps 6e-8 of each value; folding batch norms and another order of addition through some
# fifty layers cost a few of those, a wrong channel costs everything.
TOLERANCE = 1e-5


def short_mobilenet_v3() -> nn.Module:
    """Blocks with and without squeeze-and-excitation, hard-swish and ReLU, with a way round."""
    block = partial(models.mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    rows = [(16, 3, 32, 16, True, "RE", 2), (16, 3, 64, 24, False, "HS", 2),
            (24, 5, 96, 24, True, "HS", 1)]  # fmt: skip
    return models.MobileNetV3([block(*row) for row in rows], 64, num_classes=10)


SHORT = {
    "resnet": lambda: models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=10),
    "mobilenet_v3": short_mobilenet_v3,
    "shufflenet": lambda: models.ShuffleNetV2([2, 2, 2], [24, 48, 96, 192, 512], num_classes=10),
}


@pytest.mark.parametrize("name", SHORT)
def test_cut_network_trains_is_cut_again_and_runs_as_onnx(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = SHORT[name]()
    x, y = torch.randn(4, 3, 64, 64), torch.arange(4)
    graph = trace(net, x[:1])
    plan = ChannelPlan.uniform(graph, 0.5)
    small = prune(net, graph, plan)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(
        p.numel() for p in net.parameters()
    )

    _train_a_step(small, x, y)

    again = trace(small, x[:1])
    assert {group.id: group.size for group in again.prunable} == {
        **{group.id: group.size for group in graph.prunable if group.id not in plan.keep},
        **plan.counts(),
    }
    smaller = ChannelPlan.uniform(again, 0.5)
    assert prove(small, again, smaller, [x]).relative < 1e-9
    _equal_as_onnx(prune(small, again, smaller).eval(), x, tmp_path / "model.onnx")


def _train_a_step(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Every parameter gets a gradient, finite and of its shape, and most move; the loss on the
    batch falls.
    """
    before = [p.detach().clone() for p in net.parameters()]
    optimiser = torch.optim.SGD(net.train().parameters(), lr=0.02)
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimiser.step()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    assert sum(
        bool((p != q).any()) for p, q in zip(net.parameters(), before, strict=True)
    ) > 0.9 * len(before)
    with torch.no_grad():
        assert float(F.cross_entropy(net(x), y)) < float(loss)


def _equal_as_onnx(net: nn.Module, x: torch.Tensor, path: Path) -> None:
    export_onnx(net, x[:1], path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        expected = net(x).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()

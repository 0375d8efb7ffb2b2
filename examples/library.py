"""The engines as a library, step by step: trace, plan, prune, export, compare.

    python examples/library.py

Writes original.onnx and pruned.onnx into the current folder. Takes seconds on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.benchmark import Protocol, compare
from stages.export import export_onnx
from stages.prune import ChannelPlan, mask, prune, rank_channels
from stages.trace import trace


class Residual(nn.Module):
    """Two convolutions and a shortcut: the add ties the channels of both ends together."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, inner, 3, padding=1), nn.BatchNorm2d(inner))
        self.two = nn.Sequential(nn.Conv2d(inner, channels, 3, padding=1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.two(torch.relu(self.one(x))))


def network() -> nn.Module:
    """Any classifier that torch.export accepts will do; nothing is declared about its layers."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2, padding=1),
        Residual(64, 128),
        nn.MaxPool2d(2),
        Residual(64, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    ).eval()


def main() -> None:
    torch.manual_seed(0)
    original, images = network(), torch.randn(4, 3, 32, 32)

    # Which channels live or die together. Units of a group are cut from all its tensors at once.
    graph = trace(original, images)
    print(graph.details())

    # Which units stay: half of every group, the ones with the largest weights, in multiples of 8
    # because the runtime works on blocks of channels.
    importance = rank_channels(original, graph, "l2")
    plan = ChannelPlan.uniform(graph, cut=0.5, multiple_of=8, importance=importance)

    # `prune` cuts, `mask` only silences: both compute the same, which is what makes a cut provable.
    pruned = prune(original, graph, plan)
    with torch.inference_mode():
        difference = (pruned(images) - mask(original, graph, plan)(images)).abs().max()
    print(f"cut against silenced: largest difference {difference:.1e}")

    # One file each, checked by onnx and opened by onnxruntime before it takes its place.
    export_onnx(original, images, "original.onnx")
    export_onnx(pruned, images, "pruned.onnx")

    # Interleaved rounds in worker processes; the ratio counts only with its interval.
    found = compare("original.onnx", "pruned.onnx", protocol=Protocol(min_seconds=0.5, launches=2))
    low, high = found.ci95
    print(f"{found.verdict}: {found.ratio:.2f}× (95 % CI {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()

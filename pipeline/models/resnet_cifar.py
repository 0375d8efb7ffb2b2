"""ResNet for 32×32 images (He et al. 2016, section 4.2): a stem, then 16, 32 and 64 channels.

Parameter names are those of the widely used published weights: `conv1`, `bn1`,
`layer{1,2,3}.{i}.conv{1,2}`, `layer{1,2,3}.{i}.bn{1,2}`, `linear`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OptionAShortcut(nn.Module):
    """Every second pixel, with zero channels added on both sides: a shortcut without parameters.

    x (B, in, H, W) -> (B, out, ⌈H/2⌉, ⌈W/2⌉)
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        added = out_channels - in_channels
        self.padding = (0, 0, 0, 0, added // 2, added - added // 2)  # as those weights were trained

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], self.padding)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: Literal["A", "B"]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            if shortcut == "A":
                self.shortcut = OptionAShortcut(in_channels, out_channels)
            else:
                projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
                self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


def _stage(
    blocks: int, in_channels: int, out_channels: int, stride: int, shortcut: Literal["A", "B"]
) -> nn.Sequential:
    later = [BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(in_channels, out_channels, stride, shortcut), *later)


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2.

    Args:
        blocks: n, blocks a stage (3 for ResNet-20, 9 for ResNet-56).
        shortcut: "A" pads zero channels, "B" projects by a 1×1 convolution where the shape changes.
        width: channels of the first stage; the others have two and four times as many.
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int = 10,
        in_channels: int = 3,
        shortcut: Literal["A", "B"] = "A",
        width: int = 16,
    ) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut must be A or B, got {shortcut!r}")
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, 1, shortcut)
        self.layer2 = _stage(blocks, width, 2 * width, 2, shortcut)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, 2, shortcut)
        self.linear = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet20(
    num_classes: int = 10, in_channels: int = 3, shortcut: Literal["A", "B"] = "A", width: int = 16
) -> CifarResNet:
    """0.27 M parameters, 41 M MACs at 32×32."""
    return CifarResNet(3, num_classes, in_channels, shortcut, width)


def resnet56(
    num_classes: int = 10, in_channels: int = 3, shortcut: Literal["A", "B"] = "A", width: int = 16
) -> CifarResNet:
    """0.85 M parameters, 126 M MACs at 32×32."""
    return CifarResNet(9, num_classes, in_channels, shortcut, width)

"""GoogLeNet for small images: nine inception blocks behind a 3×3 stem, two halvings.

The variant that pruning papers report on CIFAR: batch norm everywhere, the 5×5 branch as two 3×3,
no auxiliary heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# name: width of the 1×1 branch, 3×3 (reduce, out), 5×5 (reduce, out), pool branch
_BLOCKS = {
    "a3": (64, 96, 128, 16, 32, 32),
    "b3": (128, 128, 192, 32, 96, 64),
    "a4": (192, 96, 208, 16, 48, 64),
    "b4": (160, 112, 224, 24, 64, 64),
    "c4": (128, 128, 256, 24, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64),
    "e4": (256, 160, 320, 32, 128, 128),
    "a5": (256, 160, 320, 32, 128, 128),
    "b5": (384, 192, 384, 48, 128, 128),
}


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class Inception(nn.Module):
    """Four branches side by side, concatenated over channels."""

    def __init__(
        self, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.branch1 = _conv(channels, one, 1)
        self.branch3 = nn.Sequential(_conv(channels, reduce3, 1), _conv(reduce3, three, 3))
        self.branch5 = nn.Sequential(
            _conv(channels, reduce5, 1), _conv(reduce5, five, 3), _conv(five, five, 3)
        )
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), _conv(channels, pool, 1)
        )
        self.out_channels = one + three + five + pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], 1
        )


class GoogLeNet(nn.Module):
    """GoogLeNet (arXiv 1409.4842): 6.2 M parameters, 1.5 G MACs at 32×32.

    Args:
        width_mult: scales every width.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, width_mult: float = 1.0
    ) -> None:
        super().__init__()
        channels = max(1, round(192 * width_mult))
        self.stem = _conv(in_channels, channels, 3)
        for name, widths in _BLOCKS.items():
            block = Inception(channels, *(max(1, round(width * width_mult)) for width in widths))
            self.add_module(name, block)
            channels = block.out_channels
        self.downsample = nn.MaxPool2d(3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, num_classes)."""
        x = self.stem(x)
        for name in _BLOCKS:
            if name in ("a4", "a5"):
                x = self.downsample(x)
            x = self.get_submodule(name)(x)
        return self.linear(torch.flatten(self.pool(x), 1))

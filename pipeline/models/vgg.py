"""VGG with batch norm for small images: four poolings and a global one, for 28×28 and 32×32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

# convolutions between two halvings of the resolution, and their width
_WIDTHS = (64, 128, 256, 512, 512)
_DEPTH_16 = (2, 2, 3, 3, 3)
_DEPTH_19 = (2, 2, 4, 4, 4)


def vgg16_bn(num_classes: int = 10, in_channels: int = 3, width_mult: float = 1.0) -> nn.Sequential:
    """VGG-16 (arXiv 1409.1556), one linear layer as the head.

    14.7 M parameters and 313 M MACs at 32×32.

    Args:
        width_mult: scales every width.
    """
    return _vgg(_DEPTH_16, num_classes, in_channels, width_mult)


def vgg19_bn(num_classes: int = 10, in_channels: int = 3, width_mult: float = 1.0) -> nn.Sequential:
    """VGG-19 (arXiv 1409.1556), one linear layer as the head.

    20.0 M parameters and 398 M MACs at 32×32.

    Args:
        width_mult: scales every width.
    """
    return _vgg(_DEPTH_19, num_classes, in_channels, width_mult)


def _vgg(
    depths: Sequence[int], num_classes: int, in_channels: int, width_mult: float
) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = in_channels
    for depth, full in zip(depths, _WIDTHS, strict=True):
        if layers:
            layers.append(nn.MaxPool2d(2))
        widths = [channels] + [max(1, round(full * width_mult))] * depth
        for into, width in pairwise(widths):
            conv = nn.Conv2d(into, width, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = widths[-1]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*layers))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(channels, num_classes))
    return net

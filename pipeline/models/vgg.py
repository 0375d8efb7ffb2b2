"""VGG-16 with batch norm for small images: four poolings and a global one, for 28×28 and 32×32."""

from __future__ import annotations

from torch import nn

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of the convolutions between two halvings of the resolution."""


def vgg16_bn(num_classes: int = 10, in_channels: int = 3, width_mult: float = 1.0) -> nn.Sequential:
    """VGG-16 (arXiv 1409.1556), one linear layer as the head.

    14.7 M parameters and 313 M MACs at 32×32.

    Args:
        width_mult: scales every width.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for stage in _STAGES:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in (max(1, round(width * width_mult)) for width in stage):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*layers))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(channels, num_classes))
    return net

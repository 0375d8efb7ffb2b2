"""VGG-16 with batch norm for small images: four poolings and a global one, so 28×28 and 32×32
both fit.
"""

from __future__ import annotations

from torch import nn

_WIDTHS = (
    64,
    64,
    0,
    128,
    128,
    0,
    256,
    256,
    256,
    0,
    512,
    512,
    512,
    0,
    512,
    512,
    512,
)  # 0: halve the resolution


def vgg16_bn(num_classes: int = 10, in_channels: int = 3, width_mult: float = 1.0) -> nn.Sequential:
    """VGG-16 (arXiv 1409.1556), one linear layer as the head: 14.7 M parameters, 313 M MACs at
    32×32.

    Args:
        width_mult: scales every width.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for width in _WIDTHS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        out_channels = max(1, round(width * width_mult))
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
        channels = out_channels
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*layers))
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(channels, num_classes))
    return net

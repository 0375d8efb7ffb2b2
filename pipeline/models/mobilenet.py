"""MobileNetV2 and V3 for small images: torchvision's blocks with gentler strides.

torchvision's nets halve an image five times, so 32×32 would end as 1×1. Here the stem keeps the
resolution and the stages halve it four times (32 → 2), torchvision's own schedule from the second
stage on. Halving three times (32 → 4, `strides=[1, 2, 2, 1, 1, 2, 1]`) is more accurate and about
twice as slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import nn

from pipeline.torchvision_import import import_torchvision

# expansion, channels, blocks of each stage
_STAGES = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
)


def mobilenet_v2(
    num_classes: int = 10,
    in_channels: int = 3,
    width_mult: float = 1.0,
    stem_stride: int = 1,
    strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
    dropout: float = 0.2,
) -> nn.Module:
    """MobileNetV2 (arXiv 1801.04381): 2.2 M parameters and 24 M MACs at 32×32.

    Args:
        width_mult: scales every width, rounded to multiples of 8.
        stem_stride: stride of the first convolution.
        strides: of the seven stages.
        dropout: before the classifier.
    """
    models = import_torchvision().models
    if len(strides) != len(_STAGES):
        raise ValueError(f"strides needs {len(_STAGES)} numbers, got {len(strides)}")
    setting = [[*stage, stride] for stage, stride in zip(_STAGES, strides, strict=True)]
    net = models.MobileNetV2(num_classes, width_mult, setting, dropout=dropout)
    net.features[0][0] = _stem(net.features[0][0], in_channels, stem_stride)
    return net


def mobilenet_v3(
    num_classes: int = 10,
    in_channels: int = 3,
    size: Literal["small", "large"] = "small",
    width_mult: float = 1.0,
    stem_stride: int = 1,
    dropout: float = 0.2,
) -> nn.Module:
    """MobileNetV3 (arXiv 1905.02244), torchvision's, with the stem's stride free."""
    tv = import_torchvision().models.mobilenetv3
    setting, last_channel = tv._mobilenet_v3_conf(f"mobilenet_v3_{size}", width_mult=width_mult)
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)  # TensorFlow's: momentum 0.99 there
    net = tv.MobileNetV3(setting, last_channel, num_classes, norm_layer=norm, dropout=dropout)
    net.features[0][0] = _stem(net.features[0][0], in_channels, stem_stride)
    return net


def _stem(conv: nn.Conv2d, in_channels: int, stride: int) -> nn.Conv2d:
    kernel, padding = conv.kernel_size[0], conv.padding[0]
    assert isinstance(padding, int)
    stem = nn.Conv2d(in_channels, conv.out_channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    return stem

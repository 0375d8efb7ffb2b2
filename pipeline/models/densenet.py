"""DenseNet-BC for small images: torchvision's blocks behind a stem that keeps the resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pipeline.torchvision_import import import_torchvision


def densenet(
    num_classes: int = 10,
    in_channels: int = 3,
    growth_rate: int = 12,
    block_config: Sequence[int] = (16, 16, 16),
    num_init_features: int = 24,
    drop_rate: float = 0.0,
) -> nn.Module:
    """DenseNet-BC (arXiv 1608.06993); the defaults are its 100-layer net for CIFAR.

    That one has 0.77 M parameters and 288 M MACs at 32×32.

    Args:
        growth_rate: channels each layer adds.
        block_config: layers of each dense block; the resolution halves between blocks.
        num_init_features: channels of the stem.
        drop_rate: dropout inside the blocks.
    """
    net = import_torchvision().models.DenseNet(
        growth_rate,
        tuple(block_config),
        num_init_features,
        drop_rate=drop_rate,
        num_classes=num_classes,
    )
    stem = nn.Conv2d(in_channels, num_init_features, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)  # torchvision draws its convolutions so
    net.features.conv0 = stem
    del net.features.pool0  # torchvision's stem halves the resolution twice
    return net

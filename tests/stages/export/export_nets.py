"""Small networks for the export tests, and torchvision's CNNs small enough to export quickly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import onnx
import torch
from torch import nn

from pipeline.torchvision_import import import_torchvision
from stages.export import export_proto
from stages.trace import ChannelGraph, trace


class Small(nn.Module):
    """Conv, BN, depthwise, residual add, flatten: 8 channels, 4 classes, input (3, 8, 8)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.point = nn.Conv2d(width, 6, 1)
        self.fc = nn.Linear(6 * 4 * 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.depth(x)
        x = nn.functional.max_pool2d(torch.relu(self.point(x)), 2)
        return self.fc(x.flatten(1))


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Eval mode, with batch norms that do something, as after training."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@cache
def small() -> nn.Module:
    torch.manual_seed(0)
    return lively(Small())


@cache
def small_proto() -> onnx.ModelProto:
    return export_proto(small(), torch.zeros(2, 3, 8, 8))


@cache
def small_graph() -> ChannelGraph:
    return trace(small(), torch.zeros(2, 3, 8, 8))


def _torchvision() -> dict[str, Callable[[], nn.Module]]:
    models = import_torchvision().models
    resnet, mobile = models.resnet, models.mobilenetv3
    convnext = models.convnext

    def mobilenet_v3() -> nn.Module:
        block = mobile.InvertedResidualConfig
        rows = [
            block(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
            block(16, 5, 48, 24, True, "HS", 2, 1, 1.0),
            block(24, 5, 64, 24, True, "HS", 1, 1, 1.0),
        ]
        return mobile.MobileNetV3(rows, last_channel=64, num_classes=10)

    def convnext_short() -> nn.Module:
        block = convnext.CNBlockConfig
        return convnext.ConvNeXt([block(16, 32, 1), block(32, None, 1)], num_classes=10)

    return {
        "alexnet": lambda: models.alexnet(num_classes=10),
        "squeezenet": lambda: models.squeezenet1_1(num_classes=10),
        "resnet": lambda: models.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=10),
        "resnext": lambda: models.ResNet(
            resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, groups=8, width_per_group=8
        ),
        "densenet": lambda: models.DenseNet(8, (2, 2, 2), 16, num_classes=10),
        "mobilenet_v2": lambda: models.MobileNetV2(
            10, 0.5, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]
        ),
        "mobilenet_v3": mobilenet_v3,
        "shufflenet": lambda: models.ShuffleNetV2(
            [2, 2, 1], [24, 48, 96, 192, 128], num_classes=10
        ),
        "regnet": lambda: models.RegNet(
            models.regnet.BlockParams.from_init_params(3, 16, 8.0, 2.0, 8, se_ratio=0.25),
            num_classes=10,
        ),
        "convnext": convnext_short,
    }


TORCHVISION = tuple(_torchvision())


def torchvision_net(name: str) -> nn.Module:
    torch.manual_seed(0)
    return _torchvision()[name]()

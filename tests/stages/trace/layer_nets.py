"""Networks of the layers that have a rule of their own."""

from __future__ import annotations

import torch
from net_cases import Net, case, conv
from torch import nn
from torch.nn import functional as F


@case({"a": 4, "b": 6})
class Depthwise(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.d1, self.d2, self.b = (
            conv(3, 4),
            conv(4, 4, groups=4),
            conv(4, 8, groups=4),
            conv(8, 6),
        )

    def features(self, x):
        return self.b(F.relu6(self.d2(F.relu6(self.d1(self.a(x))))))


@case({"a": 6, "g1": 3, "g2": 2})
class GroupedAfterGrouped(Net):
    """g1 has 2 groups of 6 rows, g2 has 4 groups that read 3: the two partitions of 12 channels
    meet in 3 units.
    """

    def __init__(self) -> None:
        super().__init__(8)
        self.a, self.g1, self.g2 = conv(3, 12), conv(12, 12, groups=2), conv(12, 8, groups=4)

    def features(self, x):
        return self.g2(self.g1(self.a(x)))


@case({"a": 4})
class OptionAShortcut(Net):
    """Zero-padded channels: the four that carry x follow it, the other four of b are fixed."""

    def __init__(self) -> None:
        super().__init__(8)
        self.a, self.b = conv(3, 4), conv(4, 8, stride=2)

    def features(self, x):
        x = self.a(x)
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + self.b(x)


@case({"a": 4, "up": 6, "m": 2, "g": 2})
class TransposedUNet(Net):
    def __init__(self) -> None:
        super().__init__(8)
        self.a, self.b = conv(3, 4), conv(4, 4, stride=2)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2)
        self.m = nn.ConvTranspose2d(10, 4, 3, padding=1)
        self.g = nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2)
        self.d = nn.ConvTranspose2d(4, 8, 3, padding=1, groups=4)

    def features(self, x):
        a = self.a(x)
        up = self.up(self.b(a) + F.avg_pool2d(a, 2))
        return self.d(self.g(self.m(torch.cat([a, up], 1))))


@case({"a": 2, "b": 3})
class PixelShuffles(Net):
    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b = conv(3, 8), conv(2, 3)
        self.up, self.down = nn.PixelShuffle(2), nn.PixelUnshuffle(2)

    def features(self, x):
        return self.down(self.b(self.up(self.a(x))))


@case({"a": 4, "b": 4})
class Norms(Net):
    """GroupNorm(4, 8) makes four units of two channels each; instance norm and PReLU are per
    channel.
    """

    def __init__(self) -> None:
        super().__init__(8)
        self.a, self.i, self.p, self.j = (
            conv(3, 4),
            nn.InstanceNorm2d(4, affine=True),
            nn.PReLU(4),
            nn.InstanceNorm2d(4),
        )
        self.b, self.g = conv(4, 8), nn.GroupNorm(4, 8)

    def features(self, x):
        return self.g(self.b(self.p(self.j(self.i(self.a(x))))))


@case({"fc1": 7})
class ConvNeXtBlock(Net):
    """The trunk passes a LayerNorm: frozen; the MLP inside the block is free."""

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.d, self.n = conv(3, 4), conv(4, 4, groups=4), nn.LayerNorm(4)
        self.fc1, self.fc2, self.scale = (
            nn.Linear(4, 7),
            nn.Linear(7, 4),
            nn.Parameter(torch.ones(4)),
        )

    def features(self, x):
        x = self.a(x)
        y = self.n(self.d(x).permute(0, 2, 3, 1))
        return x + (self.fc2(F.gelu(self.fc1(y))) * self.scale).permute(0, 3, 1, 2)


@case({"a": 4})
class FreeParameters(Net):
    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.scale, self.shift = (
            conv(3, 4),
            nn.Parameter(torch.rand(4, 1, 1)),
            nn.Parameter(torch.rand(1, 4, 1, 1)),
        )
        self.register_buffer("mean", torch.rand(4))
        self.pixel = nn.Parameter(torch.rand(8, 8))

    def features(self, x):
        x = self.a(x) * self.scale.exp() + self.shift
        return (x - self.mean.view(1, -1, 1, 1)) * self.pixel


@case({"a": 4, "b": 6}, (2, 3, 16))
class Conv1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b, self.head = (
            nn.Conv1d(3, 4, 3),
            nn.BatchNorm1d(4),
            nn.Conv1d(4, 6, 3),
            nn.Linear(6, 5),
        )

    def forward(self, x):
        return self.head(self.b(F.relu(self.n(self.a(x)))).mean(-1))


@case({"a": 4, "b": 6}, (2, 3, 4, 4, 4))
class Conv3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b, self.head = (
            conv3(3, 4),
            nn.BatchNorm3d(4),
            conv3(4, 6),
            nn.Linear(6, 5),
        )

    def forward(self, x):
        return self.head(F.adaptive_avg_pool3d(self.b(F.relu(self.n(self.a(x)))), 1).flatten(1))


def conv3(into: int, out: int) -> nn.Conv3d:
    return nn.Conv3d(into, out, 3, padding=1)

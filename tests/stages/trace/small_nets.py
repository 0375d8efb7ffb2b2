"""The smallest net that has each topology, with the exact number of units per prunable group.

Every net ends in a head whose rows are the model output and therefore frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    units: dict[str, int]
    shape: tuple[int, ...] = (2, 3, 8, 8)


CASES: dict[str, Case] = {}


def case(units: dict[str, int], shape: tuple[int, ...] = (2, 3, 8, 8)) -> Callable[[type], type]:
    """Register a net class (no arguments) under its name."""

    def register(net: type) -> type:
        CASES[net.__name__] = Case(net, units, shape)
        return net

    return register


def conv(into: int, out: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """`features` then global average pool and a linear head on `width` channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


@case({"a": 6, "b": 4})
class Chain(Net):
    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.n, self.b = conv(3, 6), nn.BatchNorm2d(6), conv(6, 4)

    def features(self, x):
        return self.b(torch.relu(self.n(self.a(x))))


@case({"a": 6, "b": 4})
class Residual(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b, self.c = conv(3, 6), conv(6, 4), conv(4, 6)

    def features(self, x):
        x = self.a(x)
        return F.relu(x + self.c(F.relu(self.b(x))))


@case({"a": 6})
class ThreeWaySum(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.b, self.c = conv(3, 6), conv(3, 6), conv(3, 6)

    def features(self, x):
        return self.a(x) + self.b(x) + self.c(x)


@case({"a": 6, "b": 4})
class PreActivation(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.n1, self.b, self.n2, self.c = (
            conv(3, 6),
            nn.BatchNorm2d(6),
            conv(6, 4),
            nn.BatchNorm2d(4),
            conv(4, 6),
        )

    def features(self, x):
        x = self.a(x)
        return x + self.c(F.relu(self.n2(self.b(F.relu(self.n1(x))))))


@case({"a": 4, "b": 2, "c": 3})
class CascadedConcat(Net):
    def __init__(self) -> None:
        super().__init__(9)
        self.a, self.b, self.n, self.c = conv(3, 4), conv(4, 2), nn.BatchNorm2d(6), conv(6, 3)

    def features(self, x):
        x = self.a(x)
        x = self.n(torch.cat([x, self.b(x)], 1))
        return torch.cat([x, self.c(x)], 1)


@case({"a": 4, "b": 5})
class SelfConcat(Net):
    def __init__(self) -> None:
        super().__init__(5)
        self.a, self.b = conv(3, 4), conv(8, 5)

    def features(self, x):
        x = self.a(x)
        return self.b(torch.cat([x, x], 1))


@case({"a": 4, "c": 2})
class ConcatIntoGrouped(Net):
    """Both halves feed one group each, so their equal positions are tied; so are the conv's own
    halves.
    """

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b, self.c = conv(3, 4), conv(3, 4), conv(8, 4, groups=2)

    def features(self, x):
        return self.c(torch.cat([self.a(x), self.b(x)], 1))


@case({"a": 3, "b": 3, "c": 3})
class ChunkGate(Net):
    def __init__(self) -> None:
        super().__init__(3)
        self.a, self.b, self.c = conv(3, 6), conv(3, 6), conv(6, 3)

    def features(self, x):
        left, right = self.a(x).chunk(2, dim=1)
        gated = left * torch.sigmoid(right)
        return self.c(torch.cat([gated, F.glu(self.b(torch.ones_like(gated)), 1)], 1))


@case({"a": 3})
class SplitDerived(Net):
    """Split sizes and slice ends computed from the tensor itself."""

    def __init__(self) -> None:
        super().__init__(3)
        self.a, self.b = conv(3, 6), conv(3, 3)

    def features(self, x):
        x = self.a(x)
        left, right = x.split(x.shape[1] // 2, dim=1)
        return self.b(left) + right[:, : x.shape[1] // 2]


@case({"b": 5})
class SplitHardCoded(Net):
    """The 6 and 3 in forward cannot follow a cut: frozen."""

    def __init__(self) -> None:
        super().__init__(5)
        self.a, self.b = conv(3, 6), conv(3, 5)

    def features(self, x):
        left, right = self.a(x).split(3, dim=1)
        return self.b(left * right)


@case({"a": 2, "b": 2, "c": 2})
class ChannelShuffle(Net):
    """view(b, 2, c // 2) ties the halves of a; c's two groups tie the halves of b."""

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b, self.c = conv(3, 4), conv(4, 4), conv(4, 4, groups=2)

    def features(self, x):
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)
        return self.c(self.b(x))


@case({"a": 2, "b": 4})
class PixelUnshuffleByHand(Net):
    """view(b, c // 4, 2, 2, …): here the last factors are the constants."""

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b = conv(3, 8), conv(2, 4)

    def features(self, x):
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)
        return self.b(x)


@case({"a": 6, "squeeze": 2})
class SqueezeExcite(Net):
    def __init__(self) -> None:
        super().__init__(6)
        self.a, self.squeeze, self.excite = conv(3, 6), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)

    def features(self, x):
        x = self.a(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return x * gate


@case({"a": 4, "b": 3})
class Flatten4x4(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.pool = (
            conv(3, 4),
            nn.Linear(4 * 4 * 4, 3),
            nn.AdaptiveAvgPool2d((4, 4)),
        )
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        return self.head(F.relu(self.b(torch.flatten(self.pool(self.a(x)), 1))))


@case({"a": 4})
class ViewFlatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = conv(3, 4), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x):
        return self.head(self.a(x).view(x.size(0), -1))


@case({})
class ViewHardCoded(nn.Module):
    """view(-1, 256) would give another batch size after a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = conv(3, 4), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x):
        return self.head(self.a(x).view(-1, 256))


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


@case({"a": 4, "c": 4})
class OneChannelGate(Net):
    """A convolution with one output channel, broadcast over all channels: it must stay, nothing
    else is hurt.
    """

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b, self.c = conv(3, 4), conv(4, 1), conv(4, 4)

    def features(self, x):
        x = self.a(x)
        return self.c(x * torch.sigmoid(self.b(x)))


@case({"a": 4})
class SharedConv(Net):
    """One module used twice ties what goes in to what comes out."""

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b = conv(3, 4), conv(4, 4)

    def features(self, x):
        return self.b(F.relu(self.b(self.a(x))))


@case({"a": 6, "b": 4}, (2, 3))
class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b, self.head = (
            nn.Linear(3, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 4),
            nn.Linear(4, 5),
        )

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.n(self.a(x))))))


@case({"a": 6})
class MatrixProducts(nn.Module):
    """Weights as free parameters: `x @ w`, and one matrix used both ways round."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.w = conv(3, 6), nn.Parameter(torch.randn(6, 5))

    def forward(self, x):
        x = self.a(x).mean((2, 3)) @ self.w
        return F.linear(x @ self.w.t(), self.w.t())


@case({"a": 4, "mlp": 6})
class Attention(nn.Module):
    """Query, key and value are frozen, and through the residual the tokens; the MLP beside them
    is free.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.patch = conv(3, 4), nn.Conv2d(4, 6, 4, stride=4)
        self.qkv, self.out, self.mlp, self.back = (
            nn.Linear(6, 18),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
        )
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.patch(self.a(x)).flatten(2).transpose(1, 2)
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c))
        return self.head((x + self.back(F.gelu(self.mlp(x)))).mean(1))


@case({"a": 4, "b": 3})
class DefinedBackwards(nn.Module):
    """Head defined first, an activation reused, a parameter never used, a layer made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.b, self.act, self.a = nn.Linear(3, 5), conv(4, 3), nn.ReLU(), conv(3, 4)
        self.unused = nn.Linear(9, 9)

    def forward(self, x):
        pool = nn.AdaptiveAvgPool2d(1)
        return self.head(pool(self.act(self.b(self.act(self.a(x))))).flatten(1))


@case({"a": 4})
class InPlaceOnView(Net):
    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b = conv(3, 4), conv(3, 4)

    def features(self, x):
        y = self.a(x).relu_()
        y[:, :, :4] += self.b(x)[:, :, :4]
        return y


@case({"b": 4})
class UnknownOperator(Net):
    """cummax has no rule: what it touches stays, the rest is free."""

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b = conv(3, 4), conv(8, 4)

    def features(self, x):
        x = self.a(x)
        return self.b(torch.cat([x, torch.cummax(x, 1)[0]], 1))


@case({"c": 4})
class SpatialAttention(Net):
    """Mean and maximum over the channels depend on all of them."""

    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.b, self.c = conv(3, 6), conv(2, 1), conv(6, 4)

    def features(self, x):
        x = self.a(x)
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.c(x * torch.sigmoid(self.b(pooled)))

"""Small residual networks: those with branches that may go, and their neighbours with none."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Case(NamedTuple):
    """A network, and the groups that go with each of its branches."""

    build: Callable[[], nn.Module]
    branches: dict[str, tuple[str, ...]]


REMOVABLE: dict[str, Case] = {}
STAYING: dict[str, Callable[[], nn.Module]] = {}
"""Networks whose only branch must stay, or is none."""


def removable(**branches: tuple[str, ...]) -> Callable[[type], type]:
    """Register a network under its name; a dot in an id is written as two underscores."""
    named = {name.replace("__", "."): groups for name, groups in branches.items()}

    def register(block: type) -> type:
        REMOVABLE[block.__name__] = Case(lambda: Around(block), named)
        return block

    return register


def staying(block: type) -> type:
    STAYING[block.__name__] = lambda: Around(block)
    return block


class Around(nn.Module):
    """A stem of 6 channels, the block under test, and a head on as many as the block gives."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.block = conv(3, 6), block()
        self.head = nn.Linear(getattr(block, "out", 6), 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.block(self.stem(x))).mean((2, 3)))


def conv(into: int, out: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, **options)


def block_of(into: int, inner: int, out: int, *more: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        conv(into, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
        conv(inner, inner, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(), *more,
        conv(inner, out, 1, bias=False), nn.BatchNorm2d(out),
    )  # fmt: skip


class Excite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


@removable(block=("block.conv.0",))
class Inverted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = block_of(6, 9, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


@removable(block=("block.conv.0", "block.conv.6.down"))
class Excited(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = block_of(6, 9, 6, Excite(9))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


@removable(block=("block.conv1",))
class Basic(nn.Module):
    """One module of relu for two places, and a sum written into the branch's own memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(6, 8, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = conv(8, 6, bias=False), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


@removable(block=("block.conv1",))
class Strided(Basic):
    """The shortcut is a layer as well, and stays."""

    out = 10

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(6, 8, stride=2, bias=False)
        self.conv2, self.bn2 = conv(8, 10, bias=False), nn.BatchNorm2d(10)
        self.short = nn.Conv2d(6, 10, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.short(x))


@removable(block=("block.conv1",))
class Preactivated(Basic):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn(x)))
        return x + self.conv2(F.relu(self.bn1(y)))

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(6)
        self.conv2 = conv(8, 6)
        del self.bn2


@removable(block=("block.mlp.2",))
class Scaled(nn.Module):
    """As in ConvNeXt: a norm over channels, and a factor for each that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((6, 1, 1), 0.5))
        self.mlp = nn.Sequential(
            conv(6, 6, groups=6), nn.GroupNorm(1, 6), nn.Conv2d(6, 12, 1), nn.GELU(),
            nn.Conv2d(12, 6, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.mlp(x)


@removable(block=("block.first", "block.inside.conv.0"), block__inside=("block.inside.conv.0",))
class Nested(nn.Module):
    """A residual block within the branch of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inside, self.last = conv(6, 6, 1), Inverted(), conv(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.inside(self.first(x)))


@removable(block=())
class Single(nn.Module):
    """No group lives in the branch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + self.conv(F.relu(x))


@removable(**{"block.wide": (), "block.narrow": ()})
class Parallel(nn.Module):
    """As in RepVGG: two branches beside the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = conv(6, 6), conv(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.wide(x) + self.narrow(x)


@staying
class ReadTwice(Inverted):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return F.relu(x + y) * y


@staying
class SharedModule(Inverted):
    """The layers of the branch make the trunk as well."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.conv(x)


@staying
class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.conv2d(x, self.weight)


@staying
class Gated(Inverted):
    """A branch that is silenced gives a half."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sigmoid(self.conv(x))


@staying
class Broadcast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).mean((2, 3), keepdim=True)


@staying
class InPlace(Inverted):
    """The branch begins by changing the trunk."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.flatten(1).relu_().view(x.shape))


@staying
class TiedWeight(Inverted):
    """One of its layers shares a weight with the trunk's."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = conv(6, 9, 1, bias=False)
        self.trunk.weight = self.conv[0].weight
        self.back = conv(9, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.back(F.relu(self.trunk(x)))
        return x + self.conv(x)


@staying
class Looks(Inverted):
    """Forward reads an attribute of what would go."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y / self.conv[0].out_channels


@staying
class NoTrunk(nn.Module):
    """The other side does not come from what the branch reads: without it nothing would."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(6, 6)
        self.offset = nn.Parameter(torch.randn(2, 6, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + F.relu(self.offset)

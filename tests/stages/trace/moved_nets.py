"""Networks that split, shuffle, flatten and reshape channels."""

from __future__ import annotations

import torch
from net_cases import Net, case, conv
from torch import nn
from torch.nn import functional as F


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

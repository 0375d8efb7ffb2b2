"""Networks whose channels meet: sums and concatenations."""

from __future__ import annotations

import torch
from net_cases import Net, case, conv
from torch import nn
from torch.nn import functional as F


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

"""Networks of gates, products, shared layers and what no rule knows."""

from __future__ import annotations

import torch
from net_cases import Net, case, conv
from torch import nn
from torch.nn import functional as F


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

"""What small networks with known units are made of, and where they are registered.

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

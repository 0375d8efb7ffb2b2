"""Second moments of what goes into readers and of what writers give, over all pixels of images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stages.reconstruct.forward import Listener
from stages.reconstruct.operators import LinearMap, Norm, read

_NUMBERS = 1 << 22  # of an input image batch, in all: activations are many times that


@dataclass
class Moments:
    """Sums over rows: their number, Σx (C,) and Σxxᵀ (C, C), float64."""

    rows: int
    total: Tensor
    square: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Of rows (n, C)."""
        return cls(len(x), x.sum(0, dtype=torch.float64), (x.mT @ x).double())

    def add(self, other: Moments) -> None:
        """Count further rows."""
        self.rows += other.rows
        self.total = self.total + other.total
        self.square = self.square + other.square

    @property
    def covariance(self) -> Tensor:
        """(C, C)."""
        mean = self.total / self.rows
        return self.square / self.rows - mean[:, None] * mean


def take_moments(model: nn.Module, images: Tensor, wanted: Iterable[str]) -> dict[str, Moments]:
    """Run `model`, in eval mode, on images (N, C, H, W).

    Args:
        wanted: weights, for the inputs of their layers; running means, for those of their norms.
    """
    listener = _Sums(model, frozenset(wanted))
    samples = max(1, _NUMBERS // images[0].numel())
    with torch.no_grad(), listener:
        for batch in images.split(min(256, samples)):
            model(batch)
    return listener.found


class _Sums(Listener):
    def __init__(self, model: nn.Module, wanted: frozenset[str]) -> None:
        super().__init__(model)
        self.wanted = wanted
        self.found: dict[str, Moments] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        op = read(func, args, kwargs)
        if op is not None and (name := self.name(op.named)) in self.wanted:
            self._note(name, op)
        return func(*args, **kwargs)

    def _note(self, name: str, op: LinearMap | Norm) -> None:
        channels = op.channel_dim if isinstance(op, LinearMap) else 1
        rows = op.input.movedim(channels, -1).flatten(0, -2)
        seen = Moments.of(rows)
        if name in self.found:
            self.found[name].add(seen)
        else:
            self.found[name] = seen

"""How means move when a residual branch goes, and who takes that up.

What a branch gives is a constant and something around it. The constant is missing in every layer
behind; the running mean of the batch norm there, or a bias, can follow it exactly:

    original      trunk ─▶ + E[b] + … ─▶ conv ─▶ norm, mean m
    without b     trunk ──────────────▶ conv ─▶ norm, mean m − W E[b]

Measured by one run without the branch, in which each mean follows before the next layer runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stages.reconstruct.forward import Forward, Listener, Use
from stages.reconstruct.operators import LinearMap, Norm, read

Shifts = dict[str, Tensor]
"""{running mean or bias: what is added to it}."""


class BranchMeans:
    """What means of one network are, and how they move in the same network without a branch.

    Args:
        model: in eval mode. inputs: a batch of images, or of several inputs.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], forward: Forward) -> None:
        self.inputs = inputs
        single = {use.name for use in forward.uses if forward.turns(use.name) == 1}
        self.uses = {use.name: use for use in forward.uses if use.name in single}
        listener = _Means(model, self.uses)
        with torch.no_grad(), listener:
            model(*inputs)
        self.wanted = listener.found

    def shifts(self, without: nn.Module) -> Shifts:
        """Of a network without a branch, in eval mode."""
        listener = _Follow(without, self.uses, self.wanted)
        with torch.no_grad(), listener:
            without(*self.inputs)
        return listener.shifts


class _Means(Listener):
    """Means of what batch norms see, and of what layers with a bias and no norm give."""

    def __init__(self, model: nn.Module, uses: dict[str, Use]) -> None:
        super().__init__(model)
        self.uses = uses
        self.found: dict[str, Tensor] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        op = read(func, args, kwargs)
        name = self.name(op.named) if op is not None else ""
        use = self.uses.get(name)
        if isinstance(op, Norm) and use is not None:
            self.found[name] = _mean(op.input, 1)
        out = func(*args, **kwargs)
        if isinstance(op, LinearMap) and use is not None and use.bias and use.norm is None:
            self.found[use.bias] = _mean(out, op.channel_dim)
        return out


class _Follow(Listener):
    def __init__(self, model: nn.Module, uses: dict[str, Use], wanted: dict[str, Tensor]) -> None:
        super().__init__(model)
        self.uses, self.wanted = uses, wanted
        self.shifts: Shifts = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        op = read(func, args, kwargs)
        use = self.uses.get(self.name(op.named)) if op is not None else None
        if isinstance(op, Norm) and use is not None and use.name in self.wanted:
            drift = self._note(use.name, _mean(op.input, 1) - self.wanted[use.name])
            moved = op.mean + drift
            swap = {id(op.mean): moved}
            args = tuple(swap.get(id(item), item) for item in args)
            kwargs = {key: swap.get(id(item), item) for key, item in kwargs.items()}
        out = func(*args, **kwargs)
        if not isinstance(op, LinearMap) or use is None or use.norm is not None:
            return out
        if use.bias not in self.wanted:
            return out
        drift = self._note(use.bias, self.wanted[use.bias] - _mean(out, op.channel_dim))
        shape = [1] * out.dim()
        shape[op.channel_dim] = -1
        return out + drift.view(shape)

    def _note(self, name: str, drift: Tensor) -> Tensor:
        drift = drift if bool(torch.isfinite(drift).all()) else torch.zeros_like(drift)
        if bool(drift.any()):
            self.shifts[name] = drift
        return drift


def _mean(values: Tensor, channel_dim: int) -> Tensor:
    """Mean (C,) over everything but the channels."""
    return values.movedim(channel_dim, -1).flatten(0, -2).mean(0)

"""What the original gives: rows of its layers' outputs at sampled positions, recorded on demand.

They are recorded in windows of layers, as many as fit into a given number of bytes; a layer outside
of the window costs one more run of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stages.reconstruct.forward import Forward, Listener, Use
from stages.reconstruct.operators import LinearMap, Norm, read
from stages.reconstruct.patches import Sampling


@dataclass(frozen=True)
class Target:
    """What one application should come near, for the outputs that stay.

    Attributes:
        rows: (n, out) of a layer; for a batch norm the mean of its input, (channels,).
        partner: rows of the result that is added to the layer's right behind it.
    """

    rows: Tensor
    partner: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        tensors = [self.rows] if self.partner is None else [self.rows, self.partner]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Targets:
    """Targets of every application of a weight.

    Args:
        original: in eval mode. inputs: all images at once. kept: output channels that stay by name
        of the weight or running mean, where some go. max_bytes: of one window; a single target may
        take more.
    """

    def __init__(
        self,
        original: nn.Module,
        inputs: tuple[Any, ...],
        forward: Forward,
        kept: Mapping[str, Tensor],
        sampling: Sampling,
        max_bytes: int,
    ) -> None:
        self.original, self.inputs, self.forward = original, inputs, forward
        self.kept, self.sampling, self.max_bytes = kept, sampling, max_bytes
        self.runs = 0
        self._calls = {(use.name, use.turn): use.call for use in forward.uses}
        self._window: dict[tuple[str, int], Target] = {}

    def of(self, use: Use) -> Target:
        """The target of one application; from the window, or else from a run that fills it anew."""
        key = use.name, use.turn
        if key not in self._window:
            self._window = {}  # before the run: memory is for one
            # its place in the original: a network without branches comes by it sooner
            recorder = _Recorder(self, self._calls[key], self._window)
            with torch.no_grad(), suppress(_Full), recorder:
                self.original(*self.inputs)
            self.runs += 1
        return self._window[key]


class _Full(Exception):
    """Nothing more fits into the window."""


class _Recorder(Listener):
    def __init__(self, targets: Targets, first: int, window: dict[tuple[str, int], Target]) -> None:
        super().__init__(targets.original)
        self.sampling, self.kept, self.room = targets.sampling, targets.kept, targets.max_bytes
        self.window = window
        # those before have been fitted: the cut network asks in order
        self.uses = {use.call: use for use in targets.forward.uses if use.call >= first}
        self.partners = targets.forward.partners
        self.values: dict[int, Tensor] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number, use = self.number, self.uses.get(self.number)
        op = read(func, args, kwargs) if use else None
        if use and isinstance(op, Norm):
            mean = picked(channel_mean(op.input)[None], self.kept.get(use.name))[0]
            self._keep(use, Target(mean))
        # before the call: it may be one that works in place
        partner = self.values.get(use.partner) if use else None
        out = func(*args, **kwargs)
        if use and isinstance(op, LinearMap):
            self._keep(use, self._rows(use, op, out, partner))
        if use and self.partners.get(use.partner) == number:
            del self.values[use.partner]
        if number in self.partners:
            self.values[number] = out
        return out

    def _rows(self, use: Use, op: LinearMap, out: Tensor, partner: Tensor | None) -> Target:
        positions, kept = self.sampling.positions(use, len(out)), self.kept.get(use.name)
        rows = [
            picked(positions.of(values, op.channel_dim), kept)
            for values in (out, partner)
            if values is not None
        ]
        return Target(*rows)

    def _keep(self, use: Use, target: Target) -> None:
        # the first is kept whatever its size, or no run would ever hold it
        if self.window and target.bytes > self.room:
            raise _Full
        self.room -= target.bytes
        self.window[use.name, use.turn] = target


def channel_mean(values: Tensor) -> Tensor:
    """Mean (C,) of values (B, C, *space)."""
    return values.mean([dim for dim in range(values.dim()) if dim != 1])


def picked(rows: Tensor, kept: Tensor | None) -> Tensor:
    """The columns `kept` of rows (n, C); all of them for None."""
    return rows if kept is None else rows[:, kept.to(rows.device)]

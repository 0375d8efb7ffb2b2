"""Rows of a least-squares problem: what a layer sees at sampled positions of its output.

Only the sampled positions are gathered; no map is unfolded or padded. A 3×3 convolution with
padding 1 makes its output (0, 0) of image b from

    taps of the kernel     (0,0)    (0,1)    (0,2)    (1,0)    (1,1) ...
    pixels of the input    (-1,-1)  (-1,0)   (-1,1)   (0,-1)   (0,0) ...    outside: zeros

which gives one row: for every tap, the channels of that pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from stages.reconstruct.forward import Use
from stages.reconstruct.operators import LinearMap

GROUPED = 32  # a layer of as many groups or more has small systems: few rows will do


@dataclass(frozen=True)
class Positions:
    """Sampled output positions of B samples: `where` (B, P) counts the pixels of `space`, row by
    row.
    """

    where: Tensor
    space: tuple[int, ...]

    @classmethod
    def draw(cls, samples: int, space: tuple[int, ...], rows: int, seed: int) -> Positions:
        """About `rows` positions over all samples, the same for the same seed; all where there are
        no more.
        """
        pixels = prod(space)
        each = min(pixels, max(1, -(-rows // samples)))
        if each == pixels:
            return cls(torch.arange(pixels).expand(samples, pixels), space)
        generator = torch.Generator().manual_seed(seed)
        if each * 4 < pixels:
            where = torch.randint(pixels, (samples, each), generator=generator)  # repeats are rare
        else:  # nearly all of them: draw without putting back
            where = torch.rand(samples, pixels, generator=generator).argsort(1)[:, :each]
        return cls(where, space)

    def __len__(self) -> int:
        return self.where.numel()

    def of(self, values: Tensor, channel_dim: int) -> Tensor:
        """Rows (B · P, C) of a map (B, C, *space), or of (B, *space, C) if `channel_dim` is -1."""
        last = values.movedim(channel_dim, -1)
        batch = torch.arange(len(last), device=last.device)[:, None]
        found = last[(batch, *_unravel(self.where.to(last.device), self.space))]
        return found.reshape(len(self), -1)


@dataclass(frozen=True)
class Sampling:
    """How many rows each layer's system gets, and which.

    Attributes:
        samples: the batch. rows, per_unknown: so many at least, and so many for each unknown of a
        system. grouped_rows: instead of `rows` for layers of many groups. numbers: at most so many
        in all rows of a layer.
    """

    samples: int
    seed: int = 0
    rows: int = 8192
    per_unknown: int = 8
    grouped_rows: int = 1024
    numbers: int = 1 << 27

    def positions(self, use: Use, samples: int) -> Positions:
        """The same for the original and for any cut of it."""
        # not the same pixels for all layers
        return Positions.draw(samples, use.space, self.wanted(use), self.seed + use.place)

    def wanted(self, use: Use) -> int:
        """Rows that the layer gets where its maps have so many pixels."""
        least = self.rows if use.groups < GROUPED else self.grouped_rows
        most = self.numbers // (use.unknowns * use.groups)
        return min(most, max(least, self.per_unknown * use.unknowns))

    def held_out(self, rows: int) -> int:
        """How many of a layer's rows, the last ones, are of the last quarter of the images."""
        held = max(1, self.samples // 4)
        return rows // self.samples * held if rows >= self.samples else max(1, rows // 4)


def patches(op: LinearMap, positions: Positions) -> Tensor:
    """What the layer multiplies its matrix with: (groups, B · P, taps · in / groups)."""
    if not op.kernel:
        return positions.of(op.input, -1).unsqueeze(0)
    x = op.input.movedim(1, -1)
    where = _unravel(positions.where.to(x.device), positions.space)
    taps = _unravel(torch.arange(op.taps, device=x.device), op.kernel)
    inside: Tensor | None = None
    pixels = []
    for dim, extent in enumerate(x.shape[1:-1]):
        at, there = _pixels(op, dim, where[dim][..., None], taps[dim], extent)
        pixels.append(at.clamp(0, extent - 1))  # any that exists: it is zeroed below
        if not bool(there.all()):
            inside = there if inside is None else inside & there
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    rows = x[(batch, *pixels)]
    if inside is not None:
        rows *= inside[..., None]
    split = rows.reshape(len(positions), op.taps, op.groups, -1)
    return split.permute(2, 0, 1, 3).reshape(op.groups, len(positions), -1)


def joined(parts: list[tuple[Tensor, Tensor]], sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One system of several (x, y), each (groups, n, …), with all held-out rows last."""
    if len(parts) == 1:
        return parts[0]
    ends = [x.shape[1] - sampling.held_out(x.shape[1]) for x, _ in parts]
    order = [slice(None, end) for end in ends] + [slice(end, None) for end in ends]
    pairs = list(zip(parts * 2, order, strict=True))
    x, y = (torch.cat([part[i][:, rows] for part, rows in pairs], 1) for i in (0, 1))
    return x, y


def _pixels(
    op: LinearMap, dim: int, out: Tensor, tap: Tensor, extent: int
) -> tuple[Tensor, Tensor]:
    """Input pixels along one dimension for outputs (B, P, 1) and taps (taps,), and whether they
    exist.
    """
    stride, padding, reach = op.stride[dim], op.padding[dim], tap * op.dilation[dim]
    if op.kind == "transposed":
        spread = out + padding - reach
        at = spread.div(stride, rounding_mode="floor")
        return at, (spread % stride == 0) & (at >= 0) & (at < extent)
    at = out * stride - padding + reach
    return at, (at >= 0) & (at < extent)


def _unravel(flat: Tensor, space: tuple[int, ...]) -> list[Tensor]:
    found = []
    for size in reversed(space):
        found.append(flat % size)
        flat = flat.div(size, rounding_mode="floor")
    return found[::-1]

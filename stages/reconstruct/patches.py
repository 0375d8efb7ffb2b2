"""Rows of a least-squares problem: what a layer sees at sampled positions of its output.

Only the sampled positions are gathered; no map is unfolded or padded. For a 3×3 convolution with
padding 1, the output position (0, 0) of image b needs

    taps of the kernel     (0,0) (0,1) (0,2) (1,0) (1,1) ...
    pixels of the input    (-1,-1) ...  outside: 0   (0,0)  ...

and gives one row: for every tap, the channels of that pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.reconstruct.operators import LinearMap


@dataclass(frozen=True)
class Positions:
    """Sampled output positions of B samples: `where` (B, P) counts pixels of `space` row by row."""

    where: Tensor
    space: tuple[int, ...]

    @classmethod
    def draw(cls, samples: int, space: tuple[int, ...], rows: int, seed: int) -> Positions:
        """About `rows` positions over all samples, the same for the same seed; all where there are
        no more.
        """
        pixels = 1
        for size in space:
            pixels *= size
        each = min(pixels, max(1, -(-rows // samples)))
        if each == pixels:
            return cls(torch.arange(pixels).expand(samples, pixels), space)
        generator = torch.Generator().manual_seed(seed)
        if each * 4 < pixels:
            where = torch.randint(pixels, (samples, each), generator=generator)
        else:
            where = torch.rand(samples, pixels, generator=generator).argsort(1)[:, :each]
        return cls(where, space)

    def __len__(self) -> int:
        return self.where.numel()

    def of(self, values: Tensor, channel_dim: int) -> Tensor:
        """Rows (B · P, C) of a map (B, C, *space), or (B, *space, C) where `channel_dim` is -1."""
        last = values if channel_dim == -1 else values.movedim(channel_dim, -1)
        if not self.space:
            return last.reshape(len(self), -1)
        batch = torch.arange(len(last), device=last.device)[:, None]
        found = last[(batch, *_unravel(self.where.to(last.device), self.space))]
        return found.reshape(len(self), -1)


def patches(op: LinearMap, positions: Positions) -> Tensor:
    """What the layer multiplies its matrix with: (groups, B · P, taps · in / groups)."""
    if not op.kernel:
        return positions.of(op.input, -1).unsqueeze(0)
    x = op.input.movedim(1, -1)
    size = tuple(x.shape[1:-1])
    where = _unravel(positions.where.to(x.device), positions.space)
    taps = _unravel(torch.arange(op.kernel_taps, device=x.device), op.kernel)
    inside: Tensor | None = None
    pixels = []
    for dim, extent in enumerate(size):
        at, valid = _reach(op, dim, where[dim][..., None], taps[dim], extent)
        pixels.append(at.clamp(0, extent - 1))
        if not bool(valid.all()):
            inside = valid if inside is None else inside & valid
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    rows = x[(batch, *pixels)]
    if inside is not None:
        rows = rows * inside[..., None]
    channels = x.shape[-1] // op.groups
    split = rows.reshape(len(positions), op.kernel_taps, op.groups, channels)
    return split.permute(2, 0, 1, 3).reshape(op.groups, len(positions), -1)


def _reach(
    op: LinearMap, dim: int, out: Tensor, tap: Tensor, extent: int
) -> tuple[Tensor, Tensor]:
    """Input pixels along one dimension, and whether they exist: (B, P, taps) each."""
    stride, padding, dilation = op.stride[dim], op.padding[dim], op.dilation[dim]
    if op.kind == "transposed":
        spread = out + padding - tap * dilation
        at = spread.div(stride, rounding_mode="floor")
        return at, (spread % stride == 0) & (at >= 0) & (at < extent)
    at = out * stride - padding + tap * dilation
    return at, (at >= 0) & (at < extent)


def _unravel(flat: Tensor, space: tuple[int, ...]) -> list[Tensor]:
    found = []
    for size in reversed(space):
        found.append(flat % size)
        flat = flat.div(size, rounding_mode="floor")
    return found[::-1]

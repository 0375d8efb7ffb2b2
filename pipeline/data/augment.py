"""Random changes of a whole batch of small images, from one generator, bit-reproducible on the CPU.

The draws of a batch are made in a fixed order (crop rows, crop columns, flips, cutout rows, cutout
columns, mixup weight, mixup partners), each only when its setting is on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augment:
    """Which changes to make; all off by default. `Augment(crop=4, flip=True)` is usual for CIFAR.

    Attributes:
        crop: zero padding in pixels on each side before a random crop back to the image's size.
            Streamed (large) images take a random resized crop instead, whatever the number.
        flip: mirror half of the images left to right.
        cutout: side in pixels of one square an image that is set to the mean colour; its centre may
            lie near the border.
        mixup: parameter of Beta(a, a) for the blend of each image with another of the batch;
            targets become probabilities.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0


def crop_and_flip(pixels: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Shift and mirror `pixels` (B, H, W, C) uint8 one by one; same shape and dtype."""
    if not augment.crop and not augment.flip:
        return pixels
    batch, height, width, _ = pixels.shape
    rows = torch.arange(height).expand(batch, height)
    cols = torch.arange(width).expand(batch, width)
    if augment.crop:
        reach = 2 * augment.crop + 1  # every image is shifted by its own amount, hence by indices
        rows = rows + torch.randint(reach, (batch, 1), generator=generator)
        cols = cols + torch.randint(reach, (batch, 1), generator=generator)
        pixels = F.pad(pixels, (0, 0, *(augment.crop,) * 4))
    if augment.flip:
        mirrored = torch.rand(batch, 1, generator=generator) < 0.5
        cols = torch.where(mirrored, cols.flip(1), cols)
    device = pixels.device  # drawn on the CPU, so that a GPU is shown the same images
    which = torch.arange(batch, device=device)[:, None, None]
    return pixels[which, rows.to(device)[:, :, None], cols.to(device)[:, None, :]]


def cutout(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Zero one `side`×`side` square in each image of the normalised `x` (B, C, H, W), in place."""
    batch, _, height, width = x.shape
    top = torch.randint(height, (batch, 1), generator=generator) - side // 2
    left = torch.randint(width, (batch, 1), generator=generator) - side // 2
    rows, cols = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top) & (rows < top + side)
    in_cols = (cols >= left) & (cols < left + side)
    hole = in_rows[:, None, :, None] & in_cols[:, None, None, :]
    return x.masked_fill_(hole.to(x.device), 0.0)  # the mean colour, once normalised


def mixup(
    x: Tensor, y: Tensor, classes: int, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend each image of `x` (B, C, H, W) with another, and so their classes `y` (B,).

    One weight for the batch, λ ~ Beta(α, α) mirrored to λ ≥ ½ (Zhang et al., arXiv 1710.09412).

    Returns:
        the blends, and float32 probabilities (B, classes).
    """
    # Beta(α, α) as two gammas: torch's own Beta takes no generator.
    gammas = torch._standard_gamma(
        torch.full((2,), alpha, dtype=torch.float64), generator=generator
    )
    # for a small α both may underflow to 0
    weight = float(gammas.max() / gammas.sum().clamp_min(1e-300))
    partner = torch.randperm(len(x), generator=generator).to(x.device)
    target = F.one_hot(y, classes).float()
    return torch.lerp(x[partner], x, weight), torch.lerp(target[partner], target, weight)

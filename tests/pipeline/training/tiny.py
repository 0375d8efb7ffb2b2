"""A network and images that train in milliseconds: bright left half against bright right half."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.data.images import Images
from pipeline.training import Recipe


def images(n: int = 96, seed: int = 0, classes: tuple[str, ...] = ("left", "right")) -> Images:
    """n grey 8×8 images; the label says which half is brighter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.randint(0, 128, (n, 8, 8, 1), generator=generator, dtype=torch.uint8)
    for i, label in enumerate(labels):
        pixels[i, :, 4 * int(label) : 4 * int(label) + 4] += 90
    return Images(pixels, labels, classes, mean=(0.4,), std=(0.25,))


def net(seed: int = 0, dropout: float = 0.3) -> nn.Sequential:
    """Convolution, batch norm, dropout and a linear layer: every kind of state there is."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(36, 2),
    )


def recipe(**changes: object) -> Recipe:
    settings = {"epochs": 3, "batch_size": 16, "lr": 0.05, "label_smoothing": 0.1, "precision": "fp32"}
    return Recipe(**(settings | changes))

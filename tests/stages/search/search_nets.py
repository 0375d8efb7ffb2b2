"""A small network, made-up images that it can tell apart, and a search problem on them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

from pipeline.config.search import SearchConfig
from pipeline.data import Images, Splits
from stages.search import Network, SearchProblem
from stages.trace import ChannelGraph, trace

CLASSES = ("a", "b", "c", "d")


class Block(nn.Module):
    """Inverted residual, as in MobileNetV2."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 48), Block(16, 48),
        nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        Block(32, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(CLASSES)),
    ).eval()  # fmt: skip


def images(count: int, seed: int) -> Images:
    """12x12 images: a bright quadrant, whose place is the class, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    pixels = torch.randint(0, 160, (count, 12, 12, 1), generator=generator)
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        pixels[index, row * 6 : row * 6 + 6, column * 6 : column * 6 + 6] += 90
    return Images(pixels.to(torch.uint8), labels, CLASSES, (0.4,), (0.2,))


@cache
def trained() -> tuple[nn.Module, ChannelGraph, Splits]:
    """A few dozen steps of training, so that scores mean something."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, splits = network(), Splits(train=images(256, 1), search=images(400, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    x, y = splits.train.take(256, seed=0)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return model.eval(), trace(model, x[:2]), splits


def problem(seed: int = 0, **settings: object) -> SearchProblem:
    """A search of the trained network; its budget is half of the MACs unless given."""
    model, graph, splits = trained()
    values = {"images": 100, "fit_images": 64, "trials": 20, **settings}
    chosen = SearchConfig.model_validate(values)
    return SearchProblem.build(Network(model, graph), splits, chosen, seed, align=8)


def random_counts(ready: SearchProblem, seed: int = 0) -> np.ndarray:
    """A candidate on the budget."""
    return ready.projector.logits(np.random.default_rng(seed).standard_normal(len(ready.space)))


def even_counts(ready: SearchProblem) -> np.ndarray:
    """The same keep ratio everywhere, on the budget."""
    return ready.projector.logits(np.zeros(len(ready.space)))

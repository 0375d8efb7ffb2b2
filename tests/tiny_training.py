"""A network, images and a stage context that train in milliseconds: which half is brighter?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.schema import Config
from pipeline.data import DataCard, Images, Splits
from pipeline.run.stage import SilentReporter, StageContext
from pipeline.run.store import sha256_file
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
    settings = {
        "epochs": 3,
        "batch_size": 16,
        "lr": 0.05,
        "label_smoothing": 0.1,
        "precision": "fp32",
    }
    return Recipe(**(settings | changes))


def splits() -> Splits:
    return Splits(train=images(), search=images(40, seed=9))


CARD = DataCard(
    "folder", "halves", ("left", "right"), (1, 8, 8), {"train": (68, 68)}, (0.4,), (0.25,), "5" * 64
)


class Kill(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class Recorder(SilentReporter):
    """Keeps what a stage says; `kill_at` ends it at that many steps."""

    def __init__(self, kill_at: int = 0) -> None:
        self.said: list[str] = []
        self.kill_at = kill_at

    def progress(self, done: int, total: int, **fields: Any) -> None:
        if self.kill_at and done >= self.kill_at:
            raise Kill

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note


def context(
    root: Path, inputs: dict[str, Path] | None = None, kill_at: int = 0, **sections: Any
) -> StageContext:
    """A stage's context in `root`, with the model folders of `inputs` by kind."""
    for name in ("out", "work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    hashed = {
        kind: (folder, {file.name: sha256_file(file) for file in sorted(folder.iterdir())})
        for kind, folder in (inputs or {}).items()
    }
    config = Config(**sections)
    return StageContext(
        config,
        root / "out",
        root / "work",
        hashed,
        reporter=Recorder(kill_at),
        data_card=CARD,
        depends=config.model_dump(mode="json"),
    )

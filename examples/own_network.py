"""Your own network and images through the whole chain.

    python examples/own_network.py

`small_cnn` is the network; own_network.yaml names it as `own_network:small_cnn`. The script makes
images in class folders, trains the network by code of its own, saves a state dict, and types
`rlp pipeline run` on it. Everything lands in the current folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

CLASSES = ("left", "right")
CONFIG = Path(__file__).with_suffix(".yaml")


def small_cnn(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> nn.Module:
    """rlp fills in `num_classes` and `in_channels` from the images, `width` from model.kwargs."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, num_classes),
    )


def make_images(root: Path) -> None:
    """Grey noise, brighter on one side; the side is the class."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 40)):
        for side, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = generator.integers(60, 160, (16, 16, 3), dtype=np.uint8)
                pixels[:, 8 * side : 8 * side + 8] += 25
                Image.fromarray(pixels).save(folder / f"{index}.png")


def read(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 16, 16), scaled as own_network.yaml says, and labels (N,)."""
    files = [
        (file, k) for k, name in enumerate(CLASSES) for file in (root / split / name).iterdir()
    ]
    pixels = np.stack([np.asarray(Image.open(file)) for file, _ in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (x - 0.5) / 0.25, torch.tensor([k for _, k in files])


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Stands for your training."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        for rows in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()


def main() -> None:
    torch.manual_seed(0)
    make_images(Path("images"))
    model = small_cnn(num_classes=len(CLASSES))
    train(model, *read(Path("images"), "train"))
    save_file(model.state_dict(), "own_network.safetensors")
    # The same as typing: rlp pipeline run examples/own_network.yaml
    program = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    subprocess.run([*program, "pipeline", "run", str(CONFIG)], check=True)


if __name__ == "__main__":
    main()

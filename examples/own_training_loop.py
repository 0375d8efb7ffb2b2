"""Your own training in place of rlp's: it cuts the network, you train what is left, it adopts that.

    python examples/own_training_loop.py

Network and images are those of own_network.py. `distill` stands for your code, with your data,
schedule and augmentation: rlp never sees it. In between lies an ordinary torch.nn.Module with fewer
channels. Everything lands in the current folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from own_network import CLASSES, CONFIG, make_images, read, small_cnn, train
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models import load_model

RUN = Path("artifacts") / CONFIG.stem
MINE = "mine.safetensors"


def distill(student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor) -> None:
    """Plain PyTorch: labels, and in equal parts the outputs of the original network."""
    optimiser = torch.optim.SGD(student.parameters(), lr=0.02, momentum=0.9)
    student.train()
    for _ in range(3):
        for rows in torch.randperm(len(x)).split(32):
            given = student(x[rows])
            with torch.no_grad():
                wanted = teacher(x[rows]).log_softmax(1)
            apart = F.kl_div(given.log_softmax(1), wanted, reduction="batchmean", log_target=True)
            optimiser.zero_grad()
            (F.cross_entropy(given, y[rows]) + apart).backward()
            optimiser.step()
    student.eval()


def rlp(*arguments: str) -> None:
    """The same as typing it."""
    sys.stdout.flush()
    program = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    subprocess.run([*program, *arguments], check=True)


def main() -> None:
    torch.manual_seed(0)
    make_images(Path("images"))
    images = read(Path("images"), "train")
    original = small_cnn(num_classes=len(CLASSES))
    train(original, *images)
    save_file(original.state_dict(), "own_network.safetensors")

    rlp("pipeline", "run", str(CONFIG), "--until", "reconstruct")
    pruned = load_model(RUN / "reconstruct")
    distill(pruned, load_model(RUN / "pretrain"), *images)
    save_file(pruned.state_dict(), MINE)
    rlp("stage", "distill", "--run", str(RUN), "--weights", MINE)
    # In a config of your own: `distill: {weights: mine.safetensors}`.
    rlp("pipeline", "run", str(CONFIG), "--set", f"distill.weights={MINE}")


if __name__ == "__main__":
    main()

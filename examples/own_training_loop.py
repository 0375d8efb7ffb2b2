"""Your own training loop around the library: train, trace, prune, train again, export, compare.

    python examples/own_training_loop.py

`train` stands for your code, with your data, schedule and augmentation: rlp never sees it. Between
the two calls rlp gives back an ordinary torch.nn.Module with fewer channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.benchmark import Protocol, compare
from stages.export import export_onnx
from stages.prune import ChannelPlan, prune, rank_channels
from stages.trace import trace

BATCH = 32


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, 1, 16, 16) noise with one bright quarter; its place, 0 to 3, is the label."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 16, 16, generator=generator)
    y = torch.arange(count) % 4
    for i, quarter in enumerate(y.tolist()):
        top, left = 8 * (quarter // 2), 8 * (quarter % 2)
        x[i, :, top : top + 8, left : left + 8] += 0.25
    return x, y


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 4),
    )


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, teacher: nn.Module | None) -> None:
    """Plain PyTorch. With a teacher, its outputs are half of what is learned."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            given = model(x[rows])
            loss = F.cross_entropy(given, y[rows])
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(x[rows]).log_softmax(1)
                loss = loss + F.kl_div(
                    given.log_softmax(1), wanted, reduction="batchmean", log_target=True
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()


@torch.inference_mode()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(1) == y).float().mean().item()


def main() -> None:
    torch.manual_seed(0)
    x, y = images(512, seed=1)
    test = images(256, seed=2)
    original = network()
    train(original, x, y, epochs=3, teacher=None)

    # First-order Taylor importance needs a few batches of yours; "l2" needs none.
    graph = trace(original, x[:2])
    batches = [(x[:BATCH], y[:BATCH]), (x[BATCH : 2 * BATCH], y[BATCH : 2 * BATCH])]
    importance = rank_channels(original, graph, "taylor", batches)
    plan = ChannelPlan.uniform(graph, cut=0.5, multiple_of=8, importance=importance)
    pruned = prune(original, graph, plan)
    as_cut = accuracy(pruned, *test)

    train(pruned, x, y, epochs=2, teacher=original)
    print(f"test accuracy: original {accuracy(original, *test):.1%}, ", end="")
    print(f"as cut {as_cut:.1%}, trained again {accuracy(pruned, *test):.1%}")

    export_onnx(original, x[:1], "original.onnx")
    export_onnx(pruned, x[:1], "pruned.onnx")
    found = compare("original.onnx", "pruned.onnx", protocol=Protocol(min_seconds=0.5, launches=2))
    low, high = found.ci95
    print(f"{found.verdict}: {found.ratio:.2f}× (95 % CI {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()

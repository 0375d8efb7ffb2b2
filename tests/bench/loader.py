"""Images a second: our batches against a plain DataLoader with per-image transforms, same pixels, same network.

    python tests/bench/loader.py                         embedded images
    python tests/bench/loader.py --root FOLDER           any data set that is held in memory

Three figures, each the median of interleaved rounds in this process: the loader alone, both ways; the training
loop fed by either; and the share of our loader in the training step. The plain way is the one of most tutorials:
PIL image, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize, two worker processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipeline.config import DataConfig, ModelConfig
from pipeline.data import Augment, Images, describe, load_splits
from pipeline.models import build_model
from pipeline.models.torchvision_shim import import_torchvision

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
PADDING = 4


class PerImage(Dataset):
    """What `torchvision.datasets` does: one PIL image, one transform at a time."""

    def __init__(self, images: Images) -> None:
        transforms = import_torchvision().transforms
        self.pixels, self.labels = images._pixels.numpy(), images.labels.tolist()
        self.rows = range(len(self.labels)) if images._rows is None else images._rows.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.image_shape[1:], padding=PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(images.mean, images.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.pixels[self.rows[index]]
        picture = Image.fromarray(np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels)
        return self.transform(picture), self.labels[index]


def drain(batches: Batches) -> float:
    """Seconds of one pass that only takes the batches."""
    start = time.perf_counter()
    for _ in batches():
        pass
    return time.perf_counter() - start


def train(batches: Batches, model: nn.Module, limit: int) -> float:
    """Images a second of `limit` plain SGD steps, the start of workers left out."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    seen, start = 0, 0.0
    for step, (x, y) in enumerate(batches()):
        if step == 1:
            start = time.perf_counter()
        nn.functional.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), y).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += len(x) if step else 0
        if step == limit:
            break
    return seen / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of images; the embedded ones when absent")
    parser.add_argument("--images", type=int, default=10_000, help="images of a pass")
    parser.add_argument("--model", default="resnet20", help="network of the training loop")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2, help="processes of the plain loader")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="training steps timed a round")
    args = parser.parse_args()

    source = {"source": "auto", "root": args.root} if args.root else {"source": "embedded"}
    config = DataConfig(**source, train_limit=args.images)
    card, images = describe(config), load_splits(config, seed=0).train
    generator = torch.Generator().manual_seed(0)
    plain_set = PerImage(images)

    def ours() -> Iterable[tuple[Tensor, Tensor]]:
        augment = Augment(crop=PADDING, flip=True)
        return images.batches(args.batch_size, shuffle=True, augment=augment, generator=generator)

    def plain() -> Iterable[tuple[Tensor, Tensor]]:
        return DataLoader(plain_set, args.batch_size, shuffle=True, num_workers=args.workers)

    model = build_model(ModelConfig(source=args.model), in_channels=card.in_channels, num_classes=card.num_classes)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    load: dict[str, list[float]] = {"ours": [], "plain": []}
    loop: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(args.rounds):
        for name, batches in (("ours", ours), ("plain", plain)):
            load[name].append(len(images) / drain(batches))
            loop[name].append(train(batches, model, args.steps))
    loader = {name: statistics.median(values) for name, values in load.items()}
    training = {name: statistics.median(values) for name, values in loop.items()}
    figures = {
        "data": card.label,
        "model": args.model,
        "batch_size": args.batch_size,
        "threads": torch.get_num_threads(),
        "plain_workers": args.workers,
        "load_average": os.getloadavg()[0],
        "loader_images_per_s": {name: round(value) for name, value in loader.items()},
        "loader_ratio": round(loader["ours"] / loader["plain"], 2),
        "training_images_per_s": {name: round(value) for name, value in training.items()},
        "training_ratio": round(training["ours"] / training["plain"], 2),
        "loader_share_of_step": round(training["ours"] / loader["ours"], 4),
    }
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

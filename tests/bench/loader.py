"""Images a second: our batches against a plain DataLoader with per-image transforms, same pixels,
same network.

    python tests/bench/loader.py                         embedded images
    python tests/bench/loader.py --root FOLDER           any data set that is held in memory

Two plain ways, each with 0 and 2 loader processes and torchvision's transforms on one PIL image at
a time (RandomCrop, RandomHorizontalFlip, ToTensor, Normalize):

    in memory   as torchvision.datasets.CIFAR10 does it: pixels, Image.fromarray for each
    files       as torchvision.datasets.ImageFolder does it: PNG files on disk (here in the page
                cache), opened for each

Table one takes the batches and does nothing with them; table two trains on them. Every figure is
the median of interleaved rounds in this process, after the first batches of a pass (start of
processes, prefetched batches). `waiting` is the share of a training step that goes by before its
batch is there; ours has no process beside it, so there it is the whole cost of loading. What a
faster loader buys depends on how much there is to compute: hence a network of two convolutions
beside ResNet-20.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipeline.config.data import DataConfig
from pipeline.config.schema import ModelConfig
from pipeline.data import Augment, Images, describe, load_splits
from pipeline.models import build_model
from pipeline.torchvision_import import import_torchvision
from pipeline.training import cross_entropy
from pipeline.training.machine import all_cores, autocast, faster_precision

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
PADDING = 4
WARM = 5  # batches: more than two processes prefetch
CPU = torch.device("cpu")


def per_image(images: Images) -> Any:
    """The transforms of most tutorials."""
    transforms = import_torchvision().transforms
    return transforms.Compose(
        [
            transforms.RandomCrop(images.image_shape[1:], padding=PADDING),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(images.mean, images.std),
        ]
    )


class InMemory(Dataset):
    """What `torchvision.datasets.CIFAR10` does, on our pixels."""

    def __init__(self, images: Images) -> None:
        rows = slice(None) if images._rows is None else images._rows
        self.pixels, self.labels = images._pixels[rows].numpy(), images.labels.tolist()
        self.transform = per_image(images)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(picture(self.pixels[index])), self.labels[index]


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels)


def files(images: Images, root: Path) -> Dataset:
    """torchvision's own ImageFolder over the same pixels as PNG."""
    memory = InMemory(images)
    for index, (pixels, label) in enumerate(zip(memory.pixels, memory.labels, strict=True)):
        folder = root / f"{label:04}"
        folder.mkdir(exist_ok=True)
        picture(pixels).save(folder / f"{index}.png")
    datasets = import_torchvision().datasets
    if images.image_shape[0] == 3:
        return datasets.ImageFolder(root, per_image(images))
    return datasets.ImageFolder(
        root, per_image(images), loader=lambda path: Image.open(path).convert("L")
    )


def tiny(num_classes: int, in_channels: int) -> nn.Module:
    """Two convolutions: so little to compute that loading decides."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


def network(name: str, images: Images) -> nn.Module:
    if name == "tiny":
        return tiny(images.num_classes, images.image_shape[0]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = build_model(
        ModelConfig(source=name), in_channels=images.image_shape[0], num_classes=images.num_classes
    )
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def one_pass(
    batches: Batches, step: Callable[[Tensor, Tensor], None], seconds: float
) -> tuple[float, float]:
    """(images a second, share of the time spent waiting for batches) of one pass, at most
    `seconds` of it.
    """
    seen, waited, begun, asked = 0, 0.0, 0.0, 0.0
    for count, (x, y) in enumerate(batches()):
        now = time.perf_counter()
        if count > WARM:
            waited += now - asked
        step(x, y)
        asked = time.perf_counter()
        if count == WARM:
            begun = asked
        elif count > WARM:
            seen += len(x)
            if asked - begun > seconds:
                break
    return seen / (asked - begun), waited / (asked - begun)


def trainer(model: nn.Module, precision: Any) -> Callable[[Tensor, Tensor], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    objective = cross_entropy()

    def step(x: Tensor, y: Tensor) -> None:
        with autocast(CPU, precision):
            loss = objective(model, x.contiguous(memory_format=torch.channels_last), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def compare(
    ways: dict[str, Batches], step: Callable[[Tensor, Tensor], None], rounds: int, seconds: float
) -> list[Any]:
    """One row a way: images a second, how much more ours has, and the share of waiting."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, batches in ways.items():
            found[name].append(one_pass(batches, step, seconds))
    rates = {name: statistics.median(rate for rate, _ in rows) for name, rows in found.items()}
    return [
        {
            "way": name,
            "images_per_s": round(rates[name]),
            "ours_is": round(rates["ours"] / rates[name], 2),
            "waiting": round(statistics.median(share for _, share in rows), 4),
        }
        for name, rows in found.items()
    ]


def show(title: str, rows: list[Any], waiting: bool) -> None:
    print(
        f"\n{title}\n{'':<26}{'images/s':>10}{'ours is':>10}"
        + (f"{'waiting':>10}" if waiting else "")
    )
    for row in rows:
        share = f"{row['waiting']:>10.1%}" if waiting else ""
        print(
            f"{row['way']:<26}{row['images_per_s']:>10,}{row['ours_is']:>9.2f}×{share}", flush=True
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="folder of images; the embedded ones when absent")
    parser.add_argument("--images", type=int, default=10_000, help="images of a pass")
    parser.add_argument("--models", default="tiny,resnet20", help="networks of the training loop")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", default="0,2", help="processes of the plain loader")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="most seconds of a pass that are timed"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    source = {"source": "auto", "root": args.root} if args.root else {"source": "embedded"}
    config = DataConfig(**source, train_limit=args.images)
    images = load_splits(config, seed=0).train
    generator = torch.Generator().manual_seed(0)
    augment = Augment(crop=PADDING, flip=True)

    def ours() -> Iterable[tuple[Tensor, Tensor]]:
        return images.batches(
            args.batch_size, shuffle=True, augment=augment, generator=generator, drop_last=True
        )

    def plain(data: Dataset, workers: int) -> Batches:
        return lambda: DataLoader(
            data, args.batch_size, shuffle=True, num_workers=workers, drop_last=True
        )

    with tempfile.TemporaryDirectory() as folder, all_cores() as threads:
        sets = {"in memory": InMemory(images), "files": files(images, Path(folder))}
        ways: dict[str, Batches] = {"ours": ours}
        for workers in map(int, args.workers.split(",")):
            ways |= {
                f"{name}, {workers} processes": plain(data, workers) for name, data in sets.items()
            }
        found: dict[str, Any] = {
            "data": describe(config).label,
            "batch_size": args.batch_size,
            "threads": threads,
            "torch": torch.__version__,
            "load_average": os.getloadavg()[0],
            "loader": compare(ways, lambda x, y: None, args.rounds, args.seconds),
            "training": {},
        }
        about = f"batch {args.batch_size}, {threads} thread(s), torch {torch.__version__}"
        print(
            f"{found['data']}, {len(images):,} images, {about}, load average "
            f"{found['load_average']:.1f}"
        )
        show("batches alone", found["loader"], False)
        for name in args.models.split(","):
            model = network(name, images)
            x, y = next(iter(ours()))
            precision = faster_precision(model, x, y, cross_entropy())
            rows = compare(ways, trainer(model, precision), args.rounds, args.seconds)
            found["training"][name] = {"precision": precision, "rows": rows}
            show(f"training {name}, {precision}", rows, True)
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

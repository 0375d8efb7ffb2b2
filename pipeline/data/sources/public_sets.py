"""Public data sets that `data.source` can name: whatever layout of them lies in `data.root`, else a
download (pipeline/data/sources/public.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicSet:
    """A named set.

    Attributes:
        official: its class in `torchvision.datasets`.
        classes: how many there are.
        about: one sentence for people.
        label: what to call the whole set beside a number measured on it.
        images: (train, test) images of the whole set.
    """

    official: str
    classes: int
    about: str
    label: str
    images: tuple[int, int]


PUBLIC: dict[str, PublicSet] = {
    "cifar10": PublicSet(
        "CIFAR10",
        10,
        "CIFAR-10: 50,000 + 10,000 colour images 32×32, 10 classes (170 MB)",
        "CIFAR-10",
        (50_000, 10_000),
    ),
    "cifar100": PublicSet(
        "CIFAR100",
        100,
        "CIFAR-100: 50,000 + 10,000 colour images 32×32, 100 classes (169 MB)",
        "CIFAR-100",
        (50_000, 10_000),
    ),
    "fashion-mnist": PublicSet(
        "FashionMNIST",
        10,
        "Fashion-MNIST: 60,000 + 10,000 grey images 28×28 (31 MB)",
        "Fashion-MNIST",
        (60_000, 10_000),
    ),
    "mnist": PublicSet(
        "MNIST", 10, "MNIST: 60,000 + 10,000 grey images 28×28 (12 MB)", "MNIST", (60_000, 10_000)
    ),
    "kmnist": PublicSet(
        "KMNIST",
        10,
        "KMNIST: 60,000 + 10,000 grey images 28×28 (21 MB)",
        "KMNIST",
        (60_000, 10_000),
    ),
}

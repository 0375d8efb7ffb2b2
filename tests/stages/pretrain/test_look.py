"""What is wrong with a network is said in one sentence before anything is spent on it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ArtifactError, UsageError
from stages.pretrain.look import check_scores, look_at

CLASSES = 3
IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


class Net(nn.Module):
    """A small classifier whose answer, or way to it, another function changes."""

    def __init__(self, change: Any = lambda scores: scores, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.head(self.conv(x).mean((2, 3))))


class TwoInputs(Net):
    def forward(self, x: Tensor, meta: Tensor) -> Any:
        return super().forward(x) + meta


class Auxiliary(Net):
    def forward(self, x: Tensor) -> Any:
        scores = super().forward(x)
        return (scores, scores) if self.training else scores


class OptionalInput(Net):
    def forward(self, x: Tensor, scale: float = 1.0, *, mask: Tensor | None = None) -> Any:
        return super().forward(x) * scale


def _stops(scores: Tensor) -> Tensor:
    raise ValueError("expected 224x224")


def _leaves(scores: Tensor) -> Tensor:
    raise SystemExit(3)


def _noisy(scores: Tensor) -> Tensor:
    return F.dropout(scores, 0.5)  # training=True is its default


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: {"logits": s, "features": s}, "returns a dict with 'logits', 'features'"),
        (lambda s: OrderedDict(out=s), "returns a OrderedDict with 'out'"),
        (lambda s: Answer(s, s), "returns a Answer with logits, features"),
        (lambda s: (s, s), "returns a tuple of 2"),
        (lambda s: [s], "returns a list of 1"),
        (lambda s: None, "returns a NoneType"),
        (lambda s: s.argmax(1), r"returns int64 of shape \(8,\)"),
        (lambda s: s[:, :, None, None], r"returns float32 of shape \(8, 3, 1, 1\)"),
        (lambda s: s.mean(0, keepdim=True), r"returns float32 of shape \(1, 3\)"),
        (_stops, r"stopped at .*test_look.py:\d+ \(raise ValueError.* expected 224x224"),
        (_leaves, r"stopped at .*test_look.py:\d+"),
        (_noisy, r"random in eval mode \(dropout at .*test_look.py:\d+\)"),
        (lambda s: s + torch.rand(1), r"random in eval mode \(rand at .*test_look.py:\d+\)"),
        (lambda s: s - s.mean(0), "changes with the others"),
        (lambda s: s.view(8, 3), "does not run on 4 images of 3x8x8"),
    ],
)
def test_refused_in_one_sentence(change: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        look_at(Net(change), IMAGES, CLASSES)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: {"features": s, "logits": s}, "output['logits']"),
        (lambda s: OrderedDict(out=s, mask=None), "output['out']"),
        (lambda s: Answer(s, s), "output.logits"),
        (lambda s: (s[:, :2], s), "output[1]"),
        (lambda s: (s, s), ""),
        (lambda s: None, ""),
    ],
)
def test_the_hint_names_the_logits_where_that_is_clear(change: Any, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        look_at(Net(change), IMAGES, CLASSES)
    assert caught.value.hint.partition("which are ")[2] == named


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (TwoInputs(), r"takes 2 inputs \(x, meta\)"),
        (Net(classes=1), "has 1 output, the data have 3 classes"),
        (Net(classes=2), "has 2 outputs, the data have 3 classes"),
        (
            nn.Sequential(
                nn.Conv2d(3, 3, 8), nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()
            ),
            "BatchNorm2d 1 has no running statistics",
        ),
        (nn.Sequential(nn.Conv2d(3, 3, 11), nn.Flatten()), "does not run on 8 images of 3x8x8"),
    ],
)
def test_networks_that_are_no_classifiers_of_these_images(network: nn.Module, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        look_at(network, IMAGES, CLASSES)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Net(), []),
        (OptionalInput(), []),
        (Auxiliary(), ["in training mode the network returns a tuple of 2"]),
        (Net(classes=1000), ["has 1000 outputs, the data have 3 classes"]),
        (Net(lambda s: s.softmax(1)), ["ends in a softmax"]),
        (Net(lambda s: s.double().softmax(1)), ["ends in a softmax"]),
        (Net(lambda s: s.log_softmax(1)), ["ends in a log-softmax"]),
    ],
)
def test_what_is_odd_is_said(network: nn.Module, said: list[str]) -> None:
    network.train()
    found = look_at(network, IMAGES, CLASSES)
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))
    assert network.training
    assert network.conv.training


class Counting(Net):
    """Counts its calls, and draws a number that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        self.calls += torch.rand(1).ceil()
        return super().forward(x)


def test_a_look_leaves_the_network_and_the_random_numbers_as_they_were() -> None:
    network = Counting()
    before = torch.get_rng_state()
    assert look_at(network, IMAGES, CLASSES) == []
    assert network.calls == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_whose_answers_are_no_numbers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 8), nn.BatchNorm2d(3), nn.Flatten())
    check_scores(network, IMAGES, "w.pth")
    network[1].running_var[1] = -1.0
    with pytest.raises(ArtifactError, match=r"w.pth: .*running_var of 1 is negative"):
        check_scores(network, IMAGES, "w.pth")
    network[1].running_var[1] = 1.0
    nn.init.constant_(network[0].weight, 3e38)
    with pytest.raises(ArtifactError, match="outputs on real images"):
        check_scores(network, IMAGES, "w.pth")

"""Recovery of a pruned network: batch-norm statistics first, then distillation from the original.

loss = α · T² · KL(teacher ‖ student, both softened by T) + (1 − α) · cross-entropy    (arXiv 1503.02531)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.augment import Augment
from pipeline.training import Fit, accuracy, cross_entropy, reestimate_batchnorm
from pipeline.training.machine import Objective, best_device

if TYPE_CHECKING:
    from pipeline.config.schema import DistillConfig
    from pipeline.data.images import Images
    from pipeline.data.splits import Splits

Trainer = Callable[[nn.Module, Objective, "Images"], Fit]
"""(student, objective, train images) -> Fit, leaving the best epoch in the student."""
_MOST_LOGITS = 1 << 28  # numbers, 1 GiB: beyond that the teacher looks again


@dataclass(frozen=True)
class Recovery:
    """Accuracies on the search split, as fractions, in the order they were reached."""

    teacher: float
    cut: float
    """Of the student as it came from the cut."""
    batchnorm: float
    """After re-estimating the batch-norm statistics alone."""
    final: float
    kept: str
    """What the student holds: "cut", "batchnorm" or "epoch N"."""
    fit: Fit | None
    """None when nothing was trained."""


def recover(
    student: nn.Module,
    teacher: nn.Module,
    splits: Splits,
    config: DistillConfig,
    *,
    seed: int,
    train: Trainer,
) -> Recovery:
    """Bring `student` in place as near to `teacher` as the config's budget allows.

    Kept is the best epoch on `splits.search`, unless it is worse than no training by more than a
    standard error.

    Args:
        train: runs the epochs on the objective and the images that it is given.
    """
    for model in (student, teacher):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher_accuracy = accuracy(teacher, splits.search)
    cut = accuracy(student, splits.search)
    before = _state(student)
    reestimate_batchnorm(student, bn_batches(splits.train, config, seed))
    batchnorm = accuracy(student, splits.search)
    best, kept = batchnorm, "batchnorm"
    if batchnorm < cut:
        student.load_state_dict(before)
        best, kept = cut, "cut"
    if config.mode == "bn_only" or config.epochs == 0:
        return Recovery(teacher_accuracy, cut, batchnorm, best, kept, None)
    before = _state(student)
    fitted = train(student, *lesson(config, teacher, splits.train))
    # The plan was chosen by its score on these very images before any training, which flatters
    # `best`.
    chance = math.sqrt(best * (1 - best) / len(splits.search))
    if fitted.best_accuracy >= best - chance:
        return Recovery(
            teacher_accuracy,
            cut,
            batchnorm,
            fitted.best_accuracy,
            f"epoch {fitted.best_epoch}",
            fitted,
        )
    student.load_state_dict(before)
    return Recovery(teacher_accuracy, cut, batchnorm, best, kept, fitted)


def lesson(config: DistillConfig, teacher: nn.Module, images: Images) -> tuple[Objective, Images]:
    """The loss of `config.mode`, and the images to train on.

    Images that are never changed are shown to the teacher once, before the first epoch; augmented
    ones every time.
    """
    if config.mode == "finetune":
        return cross_entropy(), images
    repeats = config.epochs > 1 and Augment(**config.augment.model_dump()) == Augment()
    if repeats and len(images) * images.num_classes <= _MOST_LOGITS:
        wanted = teacher_logits(teacher, images)
        return remembered(
            wanted, images.labels, config.temperature, config.alpha
        ), images.numbered()
    return distillation(teacher, config.temperature, config.alpha), images


def distillation(teacher: nn.Module, temperature: float, alpha: float) -> Objective:
    """The loss at the top of this module; the teacher, in eval mode, sees the same augmented
    batch.
    """
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)

    def loss(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if next(teacher.parameters()).device != x.device:
            teacher.to(x.device)
        with torch.no_grad():
            wanted = teacher(x)
        return _loss(student(x), wanted, y, temperature, alpha)

    return loss


def remembered(wanted: Tensor, labels: Tensor, temperature: float, alpha: float) -> Objective:
    """The same loss from logits (N, classes) and labels (N,) of all images; its `y` (B,) are
    the images' places.
    """

    def loss(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        nonlocal wanted, labels
        wanted, labels = wanted.to(x.device), labels.to(x.device)
        return _loss(student(x), wanted[y], labels[y], temperature, alpha)

    return loss


def teacher_logits(teacher: nn.Module, images: Images) -> Tensor:
    """Logits (N, classes) float32 of all `images`, in their order and unaugmented; the teacher
    stays as it was.
    """
    device = best_device()
    seen = copy.deepcopy(teacher).to(device).eval()
    with torch.inference_mode():
        logits = torch.cat([seen(x.to(device)).float() for x, _ in images.batches(256)])
    return logits.clone()  # made outside inference mode: autograd may save it


def _loss(given: Tensor, wanted: Tensor, y: Tensor, temperature: float, alpha: float) -> Tensor:
    given = given.float()
    student, teacher = (
        F.log_softmax(logits.float() / temperature, 1) for logits in (given, wanted)
    )
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * divergence + (1 - alpha) * F.cross_entropy(given, y)


def bn_batches(images: Images, config: DistillConfig, seed: int) -> list[Tensor]:
    """A seeded, class-balanced draw of `config.bn_images` train images, in batches (B, C, H, W)."""
    x, _ = images.take(config.bn_images, seed=seed)
    order = torch.randperm(
        len(x), generator=torch.Generator().manual_seed(seed)
    )  # no batch of one class only
    return [
        x[rows].contiguous(memory_format=torch.channels_last)
        for rows in order.split(256)
        if len(rows) > 1
    ]


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}

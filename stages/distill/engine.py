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

from pipeline.training import Fit, accuracy, cross_entropy, reestimate_batchnorm
from pipeline.training.machine import Objective

if TYPE_CHECKING:
    from pipeline.config import DistillConfig
    from pipeline.data.images import Images
    from pipeline.data.splits import Splits

Trainer = Callable[[nn.Module, Objective], Fit]


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
    student: nn.Module, teacher: nn.Module, splits: Splits, config: DistillConfig, *, seed: int, train: Trainer
) -> Recovery:
    """Bring `student` in place as near to `teacher` as the config's budget allows.

    Kept is the best epoch on `splits.search`, unless it is worse than no training by more than a standard error.

    Args:
        train: runs the epochs: (student, objective) -> Fit, leaving the best epoch in the student.
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
    fitted = train(student, objective(config, teacher))
    # The plan was chosen by its score on these very images before any training, which flatters `best`.
    chance = math.sqrt(best * (1 - best) / len(splits.search))
    if fitted.best_accuracy >= best - chance:
        return Recovery(teacher_accuracy, cut, batchnorm, fitted.best_accuracy, f"epoch {fitted.best_epoch}", fitted)
    student.load_state_dict(before)
    return Recovery(teacher_accuracy, cut, batchnorm, best, kept, fitted)


def objective(config: DistillConfig, teacher: nn.Module) -> Objective:
    """The loss of `config.mode`."""
    if config.mode == "finetune":
        return cross_entropy()
    return distillation(teacher, config.temperature, config.alpha)


def distillation(teacher: nn.Module, temperature: float, alpha: float) -> Objective:
    """The loss at the top of this module; the teacher, in eval mode, sees the same augmented batch."""
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)

    def loss(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if next(teacher.parameters()).device != x.device:
            teacher.to(x.device)
        with torch.no_grad():
            wanted = F.log_softmax(teacher(x).float() / temperature, 1)
        logits = student(x).float()
        given = F.log_softmax(logits / temperature, 1)
        divergence = F.kl_div(given, wanted, reduction="batchmean", log_target=True)
        return alpha * temperature**2 * divergence + (1 - alpha) * F.cross_entropy(logits, y)

    return loss


def bn_batches(images: Images, config: DistillConfig, seed: int) -> list[Tensor]:
    """A seeded, class-balanced draw of `config.bn_images` train images, in batches (B, C, H, W)."""
    x, _ = images.take(config.bn_images, seed=seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))  # no batch of one class only
    return [x[rows].contiguous(memory_format=torch.channels_last) for rows in order.split(256) if len(rows) > 1]


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}

"""What training minimises: cross-entropy, or distillation from a teacher.

    loss = α · T² · KL(teacher ‖ student, both softened by T) + (1 − α) · cross-entropy

Hinton, Vinyals and Dean 2015, arXiv 1503.02531. T² keeps the size of the first term's gradient
whatever T is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import Command, Hint, UsageError
from pipeline.training.fusion import fuse_batchnorms
from pipeline.training.small_convolutions import use_small_convolutions

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, x (B, C, H, W), y) -> scalar loss; y are classes (B,), or what the objective asks for."""


def cross_entropy(label_smoothing: float = 0.0) -> Objective:
    """Objective of plain training; targets are classes (B,) or probabilities (B, classes)."""

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(_logits(model, x).float(), y, label_smoothing=label_smoothing)

    return objective


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    answers = model(x)
    if isinstance(answers, Tensor):
        return answers
    raise UsageError(
        f"in training mode the network returns a {type(answers).__name__}, and a loss takes its "
        "logits (N, classes) alone",
        hint=Hint(
            "name a factory without auxiliary outputs, or train what is left yourself: ",
            Command("stage", "distill", "--run", "RUN", "--weights", "FILE"),
        ),
    )


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    *,
    alpha: float = 1.0,
    labels: Tensor | None = None,
) -> Tensor:
    """The loss at the top of this module, a scalar.

    Args:
        student, teacher: logits (B, classes); the teacher's without gradient.
        alpha: weight of the teacher; the rest goes to `labels`.
        labels: classes (B,) or probabilities (B, classes); None: the first term alone.
    """
    student = student.float()  # softmax and KL lose too much in bf16
    ours, theirs = (F.log_softmax(logits.float() / temperature, 1) for logits in (student, teacher))
    # torch's "mean" would divide by the classes too
    divergence = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    loss = alpha * temperature**2 * divergence
    return loss if labels is None else loss + (1 - alpha) * F.cross_entropy(student, labels)


def distillation(teacher: nn.Module, temperature: float, alpha: float) -> Objective:
    """`distillation_loss` from a teacher in eval mode that sees the same augmented batch."""
    # the caller's keeps its mode and its gradients
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
    asked_on: torch.device | None = None

    def objective(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        nonlocal asked_on
        if asked_on != x.device:
            asked_on = x.device
            teacher.to(asked_on)
            if asked_on.type == "cpu":
                use_small_convolutions(teacher)
            fuse_batchnorms(teacher, x[:1])
        with torch.no_grad():
            wanted = teacher(x)
        return distillation_loss(_logits(student, x), wanted, temperature, alpha=alpha, labels=y)

    return objective


def cached_teacher_loss(
    wanted: Tensor, labels: Tensor, temperature: float, alpha: float
) -> Objective:
    """The same from what the teacher answered to every image before the first step.

    The objective's `y` (B,) are the images' places in `wanted` (N, classes) and `labels` (N,):
    train on `Images.numbered`.
    """

    def objective(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        nonlocal wanted, labels
        wanted, labels = wanted.to(x.device), labels.to(x.device)
        answers = _logits(student, x)
        return distillation_loss(answers, wanted[y], temperature, alpha=alpha, labels=labels[y])

    return objective

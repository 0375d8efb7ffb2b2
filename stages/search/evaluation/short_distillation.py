"""The few steps of distillation that a candidate gets before its score."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config.search import EvaluationConfig
from pipeline.training.objectives import distillation_loss

DistillBatch = tuple[Tensor, Tensor]
"""Images (B, C, H, W) and the teacher's logits (B, classes) for them."""


def distill_batches(teacher: nn.Module, fit: Sequence[Tensor], size: int) -> list[DistillBatch]:
    """Train images and what the teacher, in eval mode, answers; computed once for all candidates.

    Args:
        fit: images in batches (B, C, H, W).
        size: images of one step; a rest of one image is left out, as batch norm needs two.
    """
    with torch.inference_mode():
        answered = [(part, teacher(part)) for part in fit]
    # cloned outside inference mode: autograd may save them
    pairs = (zip(x.split(size), y.clone().split(size), strict=True) for x, y in answered)
    return [pair for pair in itertools.chain.from_iterable(pairs) if len(pair[0]) > 1]


def distill(
    student: nn.Module,
    batches: Sequence[DistillBatch],
    steps: int,
    rules: EvaluationConfig,
    norms: Sequence[_BatchNorm],
) -> None:
    """Train `student` in place over the batches, again and again.

    Args:
        norms: those of its batch norms that use each batch's own statistics meanwhile.

    Without labels: a score must not depend on them more than the user's choice of score does.
    """
    optimizer = torch.optim.SGD(
        student.requires_grad_(True).parameters(),
        rules.lr,
        momentum=0.9,
        nesterov=True,
        fused=True,
    )
    with batch_statistics(norms):
        for step, (x, wanted) in enumerate(itertools.islice(itertools.cycle(batches), steps)):
            optimizer.param_groups[0]["lr"] = rules.lr * min(1.0, (step + 1) / rules.warmup)
            loss = distillation_loss(student(x), wanted, rules.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@contextmanager
def batch_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Normalise by each batch's own statistics and keep none.

    Only batch norms are in training mode: no dropout.
    """
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.training, norm.track_running_stats = False, True

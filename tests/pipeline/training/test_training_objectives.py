"""Distillation: the loss as written, from a teacher that stays as it was."""

from __future__ import annotations

import pytest
import torch
from tiny_training import net, splits
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import UsageError
from pipeline.training import distillation, distillation_loss
from pipeline.training.objectives import cached_teacher_loss, cross_entropy


def values(model: nn.Module) -> list[Tensor]:
    return [t.clone() for t in model.state_dict().values()]


def test_loss_is_the_written_formula() -> None:
    teacher, student = net(1, dropout=0.0).eval(), net(2, dropout=0.0).eval()
    x, y = next(splits().train.batches(8))
    t, s = (F.softmax(model(x) / 3, 1) for model in (teacher, student))
    divergence = (t * (t.log() - s.log())).sum(1).mean()
    expected = 0.6 * 9 * divergence + 0.4 * F.cross_entropy(student(x), y)
    torch.testing.assert_close(distillation(teacher, 3.0, 0.6)(student, x, y), expected)


def test_teacher_is_in_eval_mode_gets_no_gradient_and_stays_as_it_was() -> None:
    teacher, student = net(1, dropout=0.9).train(), net(1, dropout=0.0).eval()
    before = values(teacher)
    x, y = next(splits().train.batches(8))
    with torch.no_grad():
        student[1].running_mean.copy_(teacher[1].running_mean)
    loss = distillation(teacher, 2.0, 1.0)(student, x, y)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)  # same weights, no dropout: nothing to learn
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, values(teacher), strict=True))
    assert teacher.training


def test_without_labels_the_teacher_is_all_there_is() -> None:
    student, teacher = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    alone = distillation_loss(student, teacher, 4.0)
    assert alone == distillation_loss(student, teacher, 4.0, alpha=1.0, labels=labels)
    assert alone > distillation_loss(student, student, 4.0) == pytest.approx(0.0, abs=1e-6)


def test_a_network_that_answers_with_more_than_its_logits_is_refused() -> None:
    class Auxiliary(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    x, y = torch.randn(2, 3), torch.tensor([0, 1])
    cached = cached_teacher_loss(x, y, 2.0, 0.5)
    for objective in (cross_entropy(), distillation(nn.Identity(), 2.0, 0.5), cached):
        with pytest.raises(UsageError, match="returns a tuple"):
            objective(Auxiliary(), x, y)

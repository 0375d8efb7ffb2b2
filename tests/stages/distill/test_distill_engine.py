"""Recovery: batch norm first, the best kept, the teacher asked no more often than needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distill_nets import pair
from tiny_training import net, splits
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import DistillConfig
from pipeline.data import Images
from pipeline.training import Fit, Objective, Recipe, accuracy, distillation, fit
from stages.distill import Recovery, recover
from stages.distill.engine import epochs_for, training_objective


def trainer(config: DistillConfig) -> Any:
    def train(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
        recipe = Recipe(epochs, 16, config.lr, precision="fp32")
        return fit(model, images, splits().search, recipe, seed=0, objective=objective)

    return train


def never(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
    raise AssertionError("nothing was to be trained")


def values(model: nn.Module) -> list[Tensor]:
    return [t.clone() for t in model.state_dict().values()]


def assert_changed_from_teacher(result: Recovery, student: nn.Module, teacher: nn.Module) -> None:
    """`change` counts the images that the student, as it is left, gained and lost."""
    found, labels = {}, torch.cat([y for _, y in splits().search.batches(256)])
    for name, model in (("student", student), ("teacher", teacher)):
        with torch.inference_mode():
            named = [model.eval()(x).argmax(1) for x, _ in splits().search.batches(256)]
        found[name] = torch.cat(named) == labels
    gained = int((found["student"] & ~found["teacher"]).sum())
    lost = int((found["teacher"] & ~found["student"]).sum())
    change = result.change
    assert (change["images"], change["gained"], change["lost"]) == (len(labels), gained, lost)


def test_bn_only_changes_statistics_alone_and_reports_the_gain() -> None:
    teacher, student = pair()
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(3.0)
    weights = [p.clone() for p in student.parameters()]
    config = DistillConfig(mode="bn_only", bn_images=96)
    result = recover(student, teacher, splits(), config, seed=0, train=never)
    assert all(torch.equal(a, b) for a, b in zip(weights, student.parameters(), strict=True))
    assert result.cut < result.batchnorm == result.final == accuracy(student, splits().search)
    assert result.kept == "batchnorm"
    assert_changed_from_teacher(result, student, teacher)
    assert result.fit is None
    assert (
        recover(
            student, teacher, splits(), DistillConfig(epochs=0, bn_images=96), seed=0, train=never
        ).fit
        is None
    )


def test_distillation_recovers() -> None:
    teacher, student = pair()
    config = DistillConfig(epochs=4, lr=0.02, bn_images=96)
    result = recover(student, teacher, splits(), config, seed=0, train=trainer(config))
    assert result.final == accuracy(student, splits().search) >= result.batchnorm
    assert result.teacher == accuracy(teacher, splits().search)
    assert result.kept.startswith("epoch ")
    assert_changed_from_teacher(result, student, teacher)


@pytest.mark.parametrize(
    ("missing", "epochs"),
    [(-0.02, 0), (0.0, 0), (0.0024, 0), (0.0026, 1), (0.02, 4), (0.0226, 5), (0.5, 30)],
)
def test_length_follows_from_what_is_missing(missing: float, epochs: int) -> None:
    assert epochs_for(DistillConfig(), missing=missing) == epochs
    assert epochs_for(DistillConfig(epochs=7), missing=missing) == 7
    assert epochs_for(DistillConfig(mode="bn_only"), missing=missing) == 0


def test_the_student_decides_the_length_before_it_is_trained() -> None:
    teacher, student = pair()
    asked: list[int] = []

    def train(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
        asked.append(epochs)
        return Fit([], 1, 1.0, "fp32", 1, 0.0)

    config = DistillConfig(bn_images=96)
    result = recover(student, teacher, splits(), config, seed=0, train=train)
    start = max(result.cut, result.batchnorm)
    assert asked == [result.epochs] == [epochs_for(config, missing=result.teacher - start)]


def test_statistics_that_make_it_worse_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = pair()
    before, score = values(student), accuracy(student, splits().search)

    def spoil(model: nn.Module, batches: Any) -> None:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_var.fill_(1e-3)
                    module.running_mean.fill_(9.0)

    monkeypatch.setattr("stages.distill.engine.reestimate_batchnorm", spoil)
    result = recover(student, teacher, splits(), DistillConfig(mode="bn_only"), seed=0, train=never)
    assert result.batchnorm < score == result.cut == result.final
    assert result.kept == "cut"
    assert_changed_from_teacher(result, student, teacher)
    assert all(torch.equal(a, b) for a, b in zip(before, values(student), strict=True))


def test_training_that_makes_it_worse_is_not_kept() -> None:
    teacher, student = pair()

    def worse(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        return Fit([], 1, 0.0, "fp32", 1, 0.0)

    result = recover(student, teacher, splits(), DistillConfig(bn_images=96), seed=0, train=worse)
    assert isinstance(result, Recovery)
    assert result.final == max(result.cut, result.batchnorm) == accuracy(student, splits().search)
    assert_changed_from_teacher(result, student, teacher)
    assert not result.kept.startswith("epoch")


def test_finetune_never_asks_the_teacher() -> None:
    teacher, student = pair()
    config = DistillConfig(mode="finetune", epochs=1, bn_images=96)
    calls: list[float] = []

    def train(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
        x, y = next(splits().train.batches(4))
        model.eval()
        calls.append(float((objective(model, x, y) - F.cross_entropy(model(x), y)).detach()))
        return Fit([], 1, 1.0, "fp32", 1, 0.0)

    recover(student, teacher, splits(), config, seed=0, train=train)
    assert calls == [0.0]


PLAIN = {"crop": 0, "flip": False}


@pytest.mark.parametrize(("augment", "cached"), [(PLAIN, True), (PLAIN | {"crop": 1}, False)])
def test_teacher_sees_images_that_never_change_once_and_augmented_ones_every_epoch(
    augment: dict[str, Any], cached: bool
) -> None:
    teacher, student = pair()
    shown = []
    teacher.conv1.register_forward_hook(lambda module, x, out: shown.append(len(x[0])))
    config = DistillConfig(epochs=4, augment=augment, bn_images=96)
    recover(student, teacher, splits(), config, seed=0, train=trainer(config))
    search, train = len(splits().search), len(splits().train)
    batches = [count for count in shown if count > 1]  # single ones tell whether fusion is exact
    assert sum(batches) == search + train * (1 if cached else 4)


def test_cached_logits_give_the_same_loss_as_asking_again() -> None:
    teacher, student = net(1, dropout=0.9), net(2, dropout=0.0).eval()
    config = DistillConfig(epochs=2, augment=PLAIN, temperature=3.0, alpha=0.6)
    asking = distillation(teacher, 3.0, 0.6)
    objective, images = training_objective(config, teacher, splits().train, 2)
    draw = {"shuffle": True, "drop_last": True}
    ours = images.batches(16, generator=torch.Generator().manual_seed(5), **draw)
    theirs = splits().train.batches(16, generator=torch.Generator().manual_seed(5), **draw)
    for (x, places), (same, y) in zip(ours, theirs, strict=True):
        assert torch.equal(x, same)
        torch.testing.assert_close(objective(student, x, places), asking(student, x, y))
    objective(student, x, places).backward()
    assert student[0].weight.grad is not None


def test_only_few_logits_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DistillConfig(epochs=2, augment=PLAIN)
    monkeypatch.setattr("stages.distill.engine._MOST_LOGITS", 2 * len(splits().train) - 1)
    _, images = training_objective(config, net(), splits().train, 2)
    assert torch.equal(images.labels, splits().train.labels)

"""Recovery of a cut network: batch-norm statistics first, then distillation from the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.channels.rebuild import rebuild
from pipeline.data.augment import Augment
from pipeline.models.weights import adopt_weights
from pipeline.paired import paired_change
from pipeline.training.evaluate import device_of, named_right, reestimate_batchnorm, share
from pipeline.training.loop import Fit
from pipeline.training.objectives import Objective, cached_teacher_loss, cross_entropy, distillation

if TYPE_CHECKING:
    from pipeline.config.schema import DistillConfig
    from pipeline.data.images import Images
    from pipeline.data.splits import Splits

Trainer = Callable[[nn.Module, Objective, "Images", int], Fit]
"""(student, objective, train images, epochs) -> Fit, leaving the best epoch in the student."""
EPOCHS_A_POINT = 2  # that is missing, where the config leaves the length to us
MOST_EPOCHS = 30
_MOST_LOGITS = 1 << 28  # numbers, 1 GiB: beyond that the teacher is asked at every step


@dataclass(frozen=True)
class Recovery:
    """Accuracies on the search split, as fractions, in the order they were reached.

    Attributes:
        cut: of the student as it came from the cut.
        batchnorm: after re-estimating the batch-norm statistics alone.
        final: of what the student holds in the end.
        kept: what that is: "cut", "batchnorm", "epoch N" or "adopted".
        epochs: that were to be trained.
        fit: None when nothing was trained.
        change: from the teacher to `final`, image by image (`pipeline.paired`).
    """

    teacher: float
    cut: float
    batchnorm: float
    final: float
    kept: str
    epochs: int
    fit: Fit | None
    change: dict[str, Any]


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
        seed: of the images that the batch-norm statistics are estimated from.
        train: runs the epochs on the objective and the images that it is given; what it raises
            leaves the student as it was then.
    """
    wanted, as_cut = _before(student, teacher, splits)
    settled = _settle_batchnorm(student, share(as_cut), splits, config, seed)
    target, cut, batchnorm = map(share, (wanted, as_cut, settled))
    right, kept = (settled, "batchnorm") if batchnorm >= cut else (as_cut, "cut")
    best = share(right)
    epochs = epochs_for(config, missing=target - best)
    if epochs == 0:
        return Recovery(target, cut, batchnorm, best, kept, 0, None, _change(wanted, right))
    before = _state(student)
    fitted = train(student, *training_objective(config, teacher, splits.train, epochs), epochs)
    # The plan was chosen by its score on these very images before any training, which flatters it.
    chance = math.sqrt(best * (1 - best) / len(splits.search))
    if fitted.best_accuracy >= best - chance:
        best, kept = fitted.best_accuracy, f"epoch {fitted.best_epoch}"
        right = named_right(student, splits.search)
    else:
        student.load_state_dict(before)
    change = _change(wanted, right)
    return Recovery(target, cut, batchnorm, best, kept, epochs, fitted, change)


def adopt(
    student: nn.Module,
    teacher: nn.Module,
    tensors: Mapping[str, Tensor],
    splits: Splits,
    where: str,
    *,
    hint: str = "",
) -> Recovery:
    """Put weights of `student` that were trained elsewhere in place, whatever their accuracy.

    Args:
        tensors: by name, as `student.state_dict()` has them.
        where: what they are called in a message; `hint` goes with it.
    Raises:
        ArtifactError: names or shapes do not fit; nothing is copied then.
    """
    wanted, as_cut = _before(student, teacher, splits)
    adopt_weights(student, tensors, where, hint=hint)
    right = named_right(student, splits.search)
    target, cut, final = map(share, (wanted, as_cut, right))
    return Recovery(target, cut, cut, final, "adopted", 0, None, _change(wanted, right))


def _change(before: Tensor, after: Tensor) -> dict[str, Any]:
    """What changed on the search split, with the interval of its chance."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return paired_change(len(before), gained, lost)


def _before(student: nn.Module, teacher: nn.Module, splits: Splits) -> tuple[Tensor, Tensor]:
    """Which search images teacher and student name correctly."""
    for model in (student, teacher):
        # on CPUs convolutions are faster channels-last
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return named_right(teacher, splits.search), named_right(student, splits.search)


def epochs_for(config: DistillConfig, *, missing: float) -> int:
    """How long to train; not at all where less than a quarter of a point is missing.

    Args:
        missing: search accuracy of the teacher less that of the student, a fraction.
    """
    if config.mode == "bn_only":
        return 0
    if config.epochs != "auto":
        return config.epochs
    # a few thousand search images cannot tell a quarter of a point
    wanted = round(EPOCHS_A_POINT * 100 * missing)
    return min(MOST_EPOCHS, max(0, wanted))


def _settle_batchnorm(
    student: nn.Module, cut: float, splits: Splits, config: DistillConfig, seed: int
) -> Tensor:
    """Which search images are named correctly with re-estimated statistics, which are taken back
    where those are fewer than the share `cut`.
    """
    before = _state(student)
    reestimate_batchnorm(student, bn_batches(splits.train, config, seed))
    found = named_right(student, splits.search)
    # on few images, or other ones than those it was trained on, it costs accuracy
    if share(found) < cut:
        student.load_state_dict(before)
    return found


def training_objective(
    config: DistillConfig, teacher: nn.Module, images: Images, epochs: int
) -> tuple[Objective, Images]:
    """The loss of `config.mode`, and the images to train on: `images`, numbered where it asks so.

    The teacher sees images that never change once, before the first epoch; augmented ones at every
    step.
    """
    if config.mode == "finetune":
        return cross_entropy(), images
    unchanged = Augment(**config.augment.model_dump()) == Augment()
    small = len(images) * images.num_classes <= _MOST_LOGITS
    if unchanged and small and epochs > 1:  # a single epoch asks it no more often
        wanted = teacher_logits(teacher, images)
        loss = cached_teacher_loss(wanted, images.labels, config.temperature, config.alpha)
        return loss, images.numbered()
    return distillation(teacher, config.temperature, config.alpha), images


def teacher_logits(teacher: nn.Module, images: Images) -> Tensor:
    """Logits (N, classes) float32 of all `images`, in order, unaugmented; leaves the teacher be."""
    device = device_of(teacher)
    copied = rebuild(teacher, {}, ()).eval()
    with torch.inference_mode():
        logits = torch.cat([copied(x.to(device)).float() for x, _ in images.batches(256)])
    return logits.clone()  # made outside inference mode: autograd may save it


def bn_batches(images: Images, config: DistillConfig, seed: int) -> list[Tensor]:
    """A seeded, class-balanced draw of `config.bn_images` train images, in batches (B, C, H, W)."""
    x, _ = images.take(config.bn_images, seed=seed)
    # The draw comes sorted by class, and a batch of one class has its own statistics.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return [
        x[rows].contiguous(memory_format=torch.channels_last)
        for rows in order.split(256)
        if len(rows) > 1  # one image has no variance
    ]


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}

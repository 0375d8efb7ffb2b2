"""How a network is trained, as plain numbers, and the learning rate they give at every step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.data.augment import Augment

if TYPE_CHECKING:
    from pipeline.config.schema import TrainingSection

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum, warmed up linearly, then annealed to zero.

    Attributes:
        batch_size: images a step; no more than there are.
        lr: the learning rate after the warm-up.
        weight_decay: of matrices and kernels; biases and norms are not decayed.
        warmup: share of all steps in which the rate rises linearly to `lr`.
        schedule: shape of the decay after it.
        ema: decay a step of the averaged weights that are scored and kept; 0: none.
        precision: bf16: autocast; auto: bf16 when a short probe shows it to be clearly faster here.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 5e-4
    momentum: float = 0.9
    label_smoothing: float = 0.0
    warmup: float = 0.15
    schedule: Literal["cosine", "linear"] = "cosine"
    ema: float = 0.0
    augment: Augment = field(default_factory=Augment)
    precision: Precision = "auto"

    @classmethod
    def from_config(
        cls, section: TrainingSection, *, epochs: int, lr: float, label_smoothing: float = 0.0
    ) -> Recipe:
        """The recipe that a config section asks for."""
        return cls(
            epochs=epochs,
            lr=lr,
            label_smoothing=label_smoothing,
            batch_size=section.batch_size,
            weight_decay=section.weight_decay,
            warmup=section.warmup,
            schedule=section.schedule,
            ema=section.ema,
            precision=section.precision,
            augment=Augment(**section.augment.model_dump()),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for records and for telling whether a checkpoint belongs to this recipe."""
        return asdict(self)


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Rate at `step` of `total` (from 0): linear up to the peak, then down to (nearly) zero.

    >>> recipe = Recipe(epochs=1, batch_size=1, lr=1.0, warmup=0.5, schedule="linear")
    >>> [learning_rate(recipe, step, 4) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warm = min(total, round(recipe.warmup * total))
    if step < warm:
        return recipe.lr * (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    if recipe.schedule == "linear":
        return recipe.lr * (1 - done)
    return recipe.lr * (0.5 * (1 + math.cos(math.pi * done)))

"""Training shared by the pretrain and distill stages. It touches neither disk nor terminal.

`fit` is the loop, `Recipe` its settings, the objectives what it minimises. Saving a `Checkpoint`
and going on from it is pipeline/run/checkpoints.py.
"""

from __future__ import annotations

from pipeline.training.evaluate import accuracy, reestimate_batchnorm
from pipeline.training.loop import Callbacks, Fit, Stopped, fit
from pipeline.training.objectives import (
    Objective,
    cached_teacher_loss,
    cross_entropy,
    distillation,
    distillation_loss,
)
from pipeline.training.recipe import Recipe, learning_rate
from pipeline.training.state import Checkpoint

__all__ = [
    "Callbacks",
    "Checkpoint",
    "Fit",
    "Objective",
    "Recipe",
    "Stopped",
    "accuracy",
    "cached_teacher_loss",
    "cross_entropy",
    "distillation",
    "distillation_loss",
    "fit",
    "learning_rate",
    "reestimate_batchnorm",
]

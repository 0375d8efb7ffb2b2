"""Training shared by the pretrain and distill stages; no disk, no terminal."""

from __future__ import annotations

from pipeline.training.checkpoint import Checkpoint
from pipeline.training.evaluate import accuracy, reestimate_batchnorm
from pipeline.training.loop import Callbacks, Fit, Stopped, cross_entropy, fit
from pipeline.training.recipe import Recipe, learning_rate
from pipeline.training.resume import CheckpointFolder, fit_resumable

__all__ = [
    "Callbacks",
    "Checkpoint",
    "CheckpointFolder",
    "Fit",
    "Recipe",
    "Stopped",
    "accuracy",
    "cross_entropy",
    "fit",
    "fit_resumable",
    "learning_rate",
    "reestimate_batchnorm",
]

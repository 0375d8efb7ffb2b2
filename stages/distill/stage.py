"""The distill stage: cut network, original and images in; the recovered network out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.data.images import Images
from pipeline.data.load import load_splits
from pipeline.data.splits import Splits
from pipeline.models.files import load_model, save_model
from pipeline.run.checkpoints import fit_resumable
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.training.loop import Fit
from pipeline.training.machine import all_cores, device_for
from pipeline.training.objectives import Objective
from pipeline.training.recipe import Recipe
from stages.distill.engine import Recovery, recover


def run(ctx: StageContext) -> dict[str, Any]:
    """Re-estimate batch-norm statistics, then train the reconstructed network towards the original.

    Reads the reconstructed network of this round and the original one; writes the recovered network
    (`model.json`, `model.safetensors`) and `distill.json` with the accuracy after each step.
    Started again after a kill, it goes on from its last checkpoint; on a CPU to the same bytes.

    Returns:
        accuracies on the search split, and which state was kept.
    Raises:
        ArtifactError: a model is damaged.
        Refused: training diverged.
        Interrupted: a stop was asked for; training goes on from there when started again.
        EnvironmentProblem: out of memory.
    """
    section = ctx.config.distill
    student_folder, teacher_folder = ctx.input("reconstructed_model"), ctx.original("base_model")
    device = device_for(ctx.config.device)
    student, teacher = (load_model(at).to(device) for at in (student_folder, teacher_folder))
    splits = load_splits(ctx.config.data, seed=ctx.seed).to(device)
    belongs_to = _identity(ctx, student_folder, teacher_folder)

    def recipe(epochs: int) -> Recipe:
        return Recipe.from_config(section, epochs=epochs, lr=section.lr)

    def train(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
        seen = Splits(train=images, search=splits.search)
        return fit_resumable(
            ctx, model, seen, recipe(epochs), belongs_to, objective, section="distill"
        )

    with all_cores():
        recovery = recover(student, teacher, splits, section, seed=ctx.seed, train=train)
    save_model(student.cpu(), ctx.out, input_shape=ctx.data_card.image_shape)
    ctx.write("distillation", _document(recovery, recipe(recovery.epochs), section.mode, ctx.seed))
    return {
        "teacher": recovery.teacher,
        "cut": recovery.cut,
        "batchnorm": recovery.batchnorm,
        "search_accuracy": recovery.final,
        "kept": recovery.kept,
    }


def _identity(ctx: StageContext, student: Path, teacher: Path) -> dict[str, Any]:
    """What a checkpoint must be of, besides recipe and seed, to be gone on from."""
    return {
        "stage": "distill",
        "depends": ctx.depends,
        "student": sha256_file(student / "model.safetensors"),
        "teacher": sha256_file(teacher / "model.safetensors"),
        "data": ctx.data_card.sha256,
    }


def _document(recovery: Recovery, recipe: Recipe, mode: str, seed: int) -> dict[str, Any]:
    """distill.json; every accuracy is on the search split."""
    fitted = recovery.fit
    training = asdict(fitted) | {"seconds": round(fitted.seconds, 1)} if fitted else None
    return {
        "mode": mode,
        "seed": seed,
        "recipe": recipe.as_dict(),
        "search_accuracy": {
            "teacher": recovery.teacher,
            "cut": recovery.cut,
            "batchnorm": recovery.batchnorm,
            "final": recovery.final,
        },
        "kept": recovery.kept,
        "training": training,
    }

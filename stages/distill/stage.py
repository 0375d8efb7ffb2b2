"""The distill stage: pruned model, its teacher and images in; the recovered model out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from pipeline.data import Images, Splits, load_splits
from pipeline.models import load_model, save_model
from pipeline.run.checkpoints import fit_resumable
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file, write_json
from pipeline.training import Fit, Objective, Recipe
from pipeline.training.machine import all_cores
from stages.distill.engine import Recovery, recover


class DistillStage:
    """Interrupted and typed again, it continues at its last checkpoint and ends in the same
    bytes (on a CPU).
    """

    def run(self, ctx: StageContext) -> dict[str, Any]:
        section = ctx.config.distill
        student_folder, teacher_folder = ctx.input("pruned_model"), ctx.original("base_model")
        student, teacher = load_model(student_folder), load_model(teacher_folder)
        splits = load_splits(ctx.config.data, seed=ctx.seed)
        recipe = Recipe.from_config(section, epochs=section.epochs, lr=section.lr)
        belongs_to = {
            "stage": "distill",
            "depends": ctx.depends,
            "student": sha256_file(student_folder / "model.safetensors"),
            "teacher": sha256_file(teacher_folder / "model.safetensors"),
            "data": ctx.data_card.sha256,
        }

        def train(model: nn.Module, objective: Objective, images: Images) -> Fit:
            seen = Splits(train=images, search=splits.search)
            return fit_resumable(ctx, model, seen, recipe, belongs_to, objective, section="distill")

        with all_cores():
            recovery = recover(student, teacher, splits, section, seed=ctx.seed, train=train)
        save_model(student, ctx.out, input_shape=ctx.data_card.image_shape)
        write_json(ctx.out / "distill.json", _document(recovery, recipe, section.mode, ctx.seed))
        return {
            "teacher": recovery.teacher,
            "cut": recovery.cut,
            "batchnorm": recovery.batchnorm,
            "search_accuracy": recovery.final,
            "kept": recovery.kept,
        }


def _document(recovery: Recovery, recipe: Recipe, mode: str, seed: int) -> dict[str, Any]:
    """distill.json; every accuracy is on the search split."""
    fitted = recovery.fit
    training = asdict(fitted) | {"seconds": round(fitted.seconds, 1)} if fitted else None
    return {
        "kind": "distillation",
        "schema_version": 1,
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


STAGE = DistillStage

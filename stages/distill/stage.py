"""The distill stage: cut network, original and images in; the recovered network out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.config.schema import Config
from pipeline.data.images import Images
from pipeline.data.load import load_splits
from pipeline.data.splits import Splits
from pipeline.errors import Hint, Key
from pipeline.models.files import load_model, save_model
from pipeline.models.weights import find_weights, load_weights
from pipeline.run.checkpoints import Keys, fit_resumable
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.training.loop import Fit
from pipeline.training.machine import all_cores, device_for
from pipeline.training.objectives import Objective
from pipeline.training.recipe import Recipe
from stages.distill.engine import Recovery, adopt, recover

_KEYS = Keys("distill.lr", "distill.batch_size")


def external(config: Config) -> dict[str, str]:
    """Hash of the user's own weights, wherever they lie."""
    if config.distill.weights is None:
        return {}
    path = _own_weights(config.distill.weights)
    return {path.name: sha256_file(path)}


def run(ctx: StageContext) -> dict[str, Any]:
    """Re-estimate batch-norm statistics, then train the reconstructed network towards the original;
    or adopt `distill.weights` where they are set.

    Reads the reconstructed network of this round and the original one; writes the recovered network
    (`model.json`, `model.safetensors`) and `distill.json` with the accuracy after each step.
    Started again after a kill, it goes on from its last checkpoint; on a CPU to the same bytes.

    Returns:
        accuracies on the search split, and which state was kept.
    Raises:
        ArtifactError: a model is damaged, or the weights are missing, damaged, or do not fit it.
        Refused: training diverged.
        Interrupted: a stop was asked for; training goes on from there when started again.
        EnvironmentProblem: out of memory.
    """
    section = ctx.config.distill
    student_folder, teacher_folder = ctx.input("reconstructed_model"), ctx.original("base_model")
    device = device_for(ctx.config.device)
    student, teacher = (load_model(at).to(device) for at in (student_folder, teacher_folder))
    splits = load_splits(ctx.config.data, seed=ctx.seed).to(device)
    if section.weights is not None:
        return _adopted(ctx, student, teacher, splits)
    if section.epochs == 0 or section.mode == "bn_only":
        own = Hint.command("stage", "distill", "--run", str(ctx.run), "--weights", "FILE")
        ctx.note(f"nothing is trained; weights from your own training are adopted by {own}")
    belongs_to = _identity(ctx, student_folder, teacher_folder)

    def recipe(epochs: int) -> Recipe:
        return Recipe.from_config(section, epochs=epochs, lr=section.lr)

    def train(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
        seen = Splits(train=images, search=splits.search)
        return fit_resumable(ctx, model, seen, recipe(epochs), belongs_to, objective, _KEYS)

    with all_cores():
        recovery = recover(student, teacher, splits, section, seed=ctx.seed, train=train)
    made = {"mode": section.mode, "recipe": recipe(recovery.epochs).as_dict()}
    return _written(ctx, student, recovery, made)


def _adopted(
    ctx: StageContext, student: nn.Module, teacher: nn.Module, splits: Splits
) -> dict[str, Any]:
    """The network with the user's own weights in it."""
    name = ctx.config.distill.weights
    assert name is not None
    path = _own_weights(name)
    fits = Hint.command(
        "inspect", str(ctx.input("reconstructed_model") / "model.safetensors"), says="lists what is"
    )
    with all_cores():
        recovery = adopt(
            student, teacher, load_weights(path), splits, name, hint=Hint(fits, " wanted")
        )
    ctx.note(f"{name}: {recovery.final:.2%} on the search split, {recovery.cut:.2%} before")
    if recovery.final < recovery.cut:
        ctx.warn(
            f"{name}: less accurate than without training; images must be prepared as data.json of "
            "stage pretrain says"
        )
    weights = {"name": path.name, "sha256": sha256_file(path)}
    return _written(ctx, student, recovery, {"mode": "adopted", "weights": weights})


def _own_weights(name: str) -> Path:
    return find_weights(name, Key("distill.weights"))


def _written(
    ctx: StageContext, student: nn.Module, recovery: Recovery, made: dict[str, Any]
) -> dict[str, Any]:
    """The summary, once network and document are written."""
    save_model(student.cpu(), ctx.out, input_shape=ctx.data_card.image_shape)
    ctx.write("distillation", {**made, "seed": ctx.seed, **_document(recovery)})
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


def _document(recovery: Recovery) -> dict[str, Any]:
    """What distill.json says of accuracy, all on the search split, and of training."""
    fitted = recovery.fit
    training = asdict(fitted) | {"seconds": round(fitted.seconds, 1)} if fitted else None
    return {
        "search_accuracy": {
            "teacher": recovery.teacher,
            "cut": recovery.cut,
            "batchnorm": recovery.batchnorm,
            "final": recovery.final,
        },
        "search_change": recovery.change,
        "kept": recovery.kept,
        "training": training,
    }

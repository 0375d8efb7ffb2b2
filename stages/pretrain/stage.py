"""The pretrain stage: config and images in; the original network out, trained here or adopted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.claims import chance_sentence
from pipeline.config.schema import Config
from pipeline.data.load import load_splits
from pipeline.errors import ArtifactError
from pipeline.models.files import save_model
from pipeline.models.folding import fold_standardised_weights, folded_layers
from pipeline.models.plain import remarks_on
from pipeline.models.registry import build_model
from pipeline.models.user_source import source_file
from pipeline.models.weights import (
    adopt_weights,
    find_weights,
    how_trained,
    load_weights,
    with_own_head,
)
from pipeline.paired import near_chance
from pipeline.run.checkpoints import fit_resumable
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.training.evaluate import accuracy
from pipeline.training.machine import all_cores, device_for
from pipeline.training.recipe import Recipe
from stages.pretrain.look import check_scores, look_at

if TYPE_CHECKING:
    from pipeline.data.card import DataCard
    from pipeline.data.splits import Splits

LOOKED_AT = 8  # images on which a network is tried before anything is spent on it


def external(config: Config) -> dict[str, str]:
    """Hashes of the weights and of the user's own module."""
    files = {}
    name = config.model.weights or config.pretrain.init
    if name is not None:
        files[name] = sha256_file(find_weights(name))
    module = source_file(config.model.source)
    if module is not None:
        files[module.name] = sha256_file(module)
    return files


def run(ctx: StageContext) -> dict[str, Any]:
    """Build the network; adopt `model.weights` if they are set, else train it.

    Reads the images alone; writes `model.json` and `model.safetensors`, `data.json` (the data
    card) and `train.json` (recipe and history, or where the weights came from). Started again after
    a kill, training goes on from its last checkpoint; on a CPU to the same bytes.

    Returns:
        how, accuracy on the search split, best epoch, seconds.
    Raises:
        ArtifactError: the weights are missing, damaged, or do not fit the network; train and test
            are the same images.
        UsageError: the network cannot be built.
        Refused: training diverged.
        Interrupted: a stop was asked for; training goes on from there when started again.
        EnvironmentProblem: out of memory.
    """
    card = ctx.data_card
    _require_other_images(card)
    splits = load_splits(ctx.config.data, seed=ctx.seed)
    with torch.random.fork_rng():
        torch.manual_seed(ctx.seed)  # of the initial weights
        model = build_model(
            ctx.config.model, in_channels=card.in_channels, num_classes=card.num_classes
        )
    images, _ = splits.search.take(LOOKED_AT, seed=ctx.seed)
    for remark in card.remarks:
        ctx.warn(remark)
    for remark in remarks_on(model):
        ctx.note(remark)
    for warning in look_at(model, images, card.num_classes):
        ctx.warn(warning)
    adopted = ctx.config.model.weights is not None
    record = (_adopt if adopted else _train)(ctx, model, splits)
    folded = fold_standardised_weights(model, images[:2])
    if layers := folded_layers(folded):
        ctx.note(f"{len(layers)} layers compute their weights; computed once, and stored plain")
    save_model(folded, ctx.out, input_shape=card.image_shape)
    ctx.write("data", card.to_dict())
    ctx.write("train", record)
    shown = ("how", "search_accuracy", "best_epoch", "seconds")
    return {key: record[key] for key in shown if key in record}


def _require_other_images(card: DataCard) -> None:
    parts = card.split_sha256
    if "test" in parts and parts["test"] == parts.get("train"):
        raise ArtifactError(
            f"{card.label}: train and test are the same {card.images['train']:,} images",
            hint="put other images into test, or all of them into one folder by class: a fifth is "
            "then held out as test",
        )


def _adopt(ctx: StageContext, model: nn.Module, splits: Splits) -> dict[str, Any]:
    name = ctx.config.model.weights
    assert name is not None
    path = find_weights(name)
    _fill(ctx, model, load_weights(path, say=ctx.note), name)
    check_scores(model, splits.search.take(LOOKED_AT, seed=ctx.seed)[0], name)
    device = device_for(ctx.config.device)
    with all_cores():
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        score = accuracy(model, splits.search.to(device))
        model.to("cpu")
    ctx.note(f"{name}: {score:.2%} on the search split")
    if near_chance(score, len(splits.search), ctx.data_card.num_classes):
        ctx.warn(chance_sentence(f"{name} on the search split", score, ctx.data_card.num_classes))
    if seen := _seen_search_images(ctx, path):
        ctx.warn(
            f"{name}: {seen}, so they have seen images of this search split; "
            "the test split is untouched"
        )
    weights = {"name": path.name, "sha256": sha256_file(path)}
    return {"how": "adopted", "weights": weights, "search_accuracy": score, **_images(splits)}


def _fill(ctx: StageContext, model: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Weights of a file into the network, and a word on what was left out of it."""
    for left in adopt_weights(model, tensors, name):
        ctx.note(left)


def _train(ctx: StageContext, model: nn.Module, splits: Splits) -> dict[str, Any]:
    section = ctx.config.pretrain
    started_from = None
    if section.init is not None:
        path = find_weights(section.init)  # to start from: they are trained further
        tensors, head = with_own_head(model, load_weights(path, say=ctx.note))
        if head:
            ctx.warn(f"{section.init}: trained for other classes; {head} is made anew")
        _fill(ctx, model, tensors, section.init)
        started_from = {"name": path.name, "sha256": sha256_file(path)}
    recipe = Recipe.from_config(
        section, epochs=section.epochs, lr=section.lr, label_smoothing=section.label_smoothing
    )
    belongs_to = {"stage": "pretrain", **_identity(ctx), "started_from": started_from}
    fitted = fit_resumable(ctx, model, splits, recipe, belongs_to)
    return {
        "how": "trained",
        "started_from": started_from,
        "recipe": recipe.as_dict(),
        "seed": ctx.seed,
        "precision": fitted.precision,
        "device": device_for(ctx.config.device).type,
        "search_accuracy": fitted.best_accuracy,
        "best_epoch": fitted.best_epoch,
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 1),
        "history": fitted.history,
        **_images(splits),
    }


def _identity(ctx: StageContext) -> Mapping[str, Any]:
    # The recipe, which is compared too, says all that matters of `pretrain`.
    parts = {name: part for name, part in ctx.depends.items() if name != "pretrain"}
    return {
        "depends": parts,
        "external": external(ctx.config),
        "data": ctx.data_card.sha256,
    }


def _seen_search_images(ctx: StageContext, weights: Path) -> str:
    """Why shipped weights were trained on images that this run chooses by.

    Empty when they were not, and where nothing is known of the weights. The search split is carved
    by the seed, from images in the order in which their files hold them.
    """
    record, card = how_trained(weights), ctx.data_card
    # images of another number are another data set, and a split of its own is carved by no seed
    if record is None or "search" in card.counts or record["data"]["images"] != card.images:
        return ""
    if record["seed"] != ctx.seed:
        return f"trained with seed {record['seed']}, this run has seed {ctx.seed}"
    if record["data"]["sha256"] != card.sha256:
        return "trained on another copy of these images, which was split otherwise"
    return ""


def _images(splits: Splits) -> dict[str, Any]:
    return {"images": {"train": len(splits.train), "search": len(splits.search)}}

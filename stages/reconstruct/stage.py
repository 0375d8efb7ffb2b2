"""The reconstruct stage: the cut network and the one it was cut from in; the same with
least-squares weights out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.config.schema import ReconstructConfig
from pipeline.data.load import load_splits
from pipeline.data.splits import Splits
from pipeline.errors import Hint, Set, UsageError
from pipeline.models.files import load_model, save_model
from pipeline.run.stage import StageContext
from pipeline.training.evaluate import accuracy
from pipeline.training.machine import all_cores, device_for, exact_float32
from stages.reconstruct.engine import (
    LEAST_IMAGES,
    Reconstruction,
    TooFewImages,
    TooLittleMemory,
    reconstruct_layers,
)


def run(ctx: StageContext) -> dict[str, Any]:
    """Fit the weights of the cut network anew, on unlabelled images of the train split.

    Writes the network, which stays as it was cut where that is the better one on the search split,
    and `reconstruct.json` with the error of every layer before and after.

    Returns:
        accuracies on the search split as fractions, of the network this round began with (whose
        layers are imitated), as cut and as reconstructed; which was kept; seconds.
    Raises:
        ArtifactError: a model is damaged, or does not belong to the plan.
        UsageError: too few images, or `reconstruct.memory_mb` does not hold them.
    """
    pruned = load_model(ctx.input("pruned_model"))
    original = load_model(ctx.input("rotated_model"))
    device = device_for(ctx.config.device)
    splits = load_splits(ctx.config.data, seed=ctx.seed).to(device)
    for model in (pruned, original):
        model.to(device)
    done: Reconstruction | None = None
    with all_cores(), exact_float32():
        if ctx.config.reconstruct.images:
            done = _reconstruct(ctx, pruned, original, splits)
        networks = {"original": original, "cut": pruned}
        networks |= {"reconstructed": done.model} if done else {}
        scores = {name: accuracy(model, splits.search) for name, model in networks.items()}
    kept = "cut" if scores.get("reconstructed", -1.0) < scores["cut"] else "reconstructed"
    save_model(networks[kept].cpu(), ctx.out, input_shape=ctx.data_card.image_shape)
    ctx.write("reconstruction", _document(done, scores, kept, ctx.seed))
    return {**scores, "kept": kept, "seconds": round(done.seconds, 1) if done else 0.0}


def _reconstruct(
    ctx: StageContext, pruned: nn.Module, original: nn.Module, splits: Splits
) -> Reconstruction:
    settings = ctx.config.reconstruct
    images, _ = splits.train.take(settings.images, seed=ctx.seed)
    graph = ChannelGraph.from_dict(ctx.read("graph"))
    plan = ChannelPlan.from_dict(ctx.read("plan"))
    with _settings_named(settings):
        done = reconstruct_layers(
            pruned,
            original,
            graph,
            plan,
            images,
            seed=ctx.seed,
            max_bytes=settings.memory_mb << 20,
            progress=ctx.progress,
        )
    if done.images < len(images):
        ctx.note(f"{done.images} of {len(images)} images fit into reconstruct.memory_mb")
    return done


@contextmanager
def _settings_named(settings: ReconstructConfig) -> Iterator[None]:
    """What the engine's errors ask for, as settings of the stage."""
    try:
        yield
    except TooFewImages as error:
        few = settings.images < LEAST_IMAGES  # or the train split has no more
        number, says = (1024, "does well") if few else (0, "leaves the network as it was cut")
        hint = Hint.set("reconstruct.images", number, says)
        raise UsageError(error.message, hint=hint) from error
    except TooLittleMemory as error:
        enough = Set("reconstruct.memory_mb", (error.needed >> 20) + 1)
        raise UsageError(error.message, hint=Hint("allow it with ", enough)) from error


def _document(
    done: Reconstruction | None, scores: dict[str, float], kept: str, seed: int
) -> dict[str, Any]:
    """reconstruct.json; errors are squares, relative to the variance of what the original gives."""
    return {
        "accuracy": scores,
        "kept": kept,
        "images": done.images if done else 0,
        "seed": seed,
        "seconds": round(done.seconds, 1) if done else 0.0,
        "layers": [asdict(layer) for layer in done.layers] if done else [],
    }

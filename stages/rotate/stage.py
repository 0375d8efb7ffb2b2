"""The rotate stage: the original and its graph in; the same function with principal components for
channels of linear trunks out.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.channels.graph import ChannelGraph
from pipeline.data.load import load_splits
from pipeline.models.files import load_model, save_model
from pipeline.run.stage import StageContext
from pipeline.training.machine import all_cores, device_for, exact_float32
from stages.rotate.engine import Rotation, rotate_trunks


def run(ctx: StageContext) -> dict[str, Any]:
    """Give the groups of linear trunks a basis that is good to cut in, from unlabelled images of
    the train split.

    Writes the network, and `rotation.json` with the groups, the variance of each component, and
    why other groups keep their channels. `rotate.images: 0` passes the network on as it is.

    Returns:
        how many groups were rotated, the largest difference of outputs in float64, seconds.
    Raises:
        ArtifactError: the model is damaged.
        UsageError: too few images.
    """
    model, rotation = load_model(ctx.input("base_model")), None
    if ctx.config.rotate.images:
        with all_cores(), exact_float32():
            splits = load_splits(ctx.config.data, seed=ctx.seed)
            images, _ = splits.train.take(ctx.config.rotate.images, seed=ctx.seed)
            graph = ChannelGraph.from_dict(ctx.read("graph"))
            rotation = rotate_trunks(model.to(device_for(ctx.config.device)), graph, images)
            model = rotation.model
    save_model(model.cpu(), ctx.out, input_shape=ctx.data_card.image_shape)
    ctx.write("rotation", _document(rotation))
    return {
        "groups": len(rotation.groups) if rotation else 0,
        "difference": rotation.difference if rotation else 0.0,
        "seconds": round(rotation.seconds, 1) if rotation else 0.0,
    }


def _document(rotation: Rotation | None) -> dict[str, Any]:
    """rotation.json; `left` says why a group is not among `groups`."""
    return {
        "groups": [asdict(group) for group in rotation.groups] if rotation else [],
        "left": rotation.left if rotation else {},
        "difference": rotation.difference if rotation else 0.0,
        "images": rotation.images if rotation else 0,
        "seconds": round(rotation.seconds, 1) if rotation else 0.0,
    }

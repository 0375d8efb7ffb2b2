"""The trace stage: original network in, channel groups out."""

from __future__ import annotations

import fnmatch
from typing import Any

import torch

from pipeline.channels.graph_text import layout
from pipeline.models.files import load_model
from pipeline.run.stage import StageContext
from stages.trace.tracing import trace


def run(ctx: StageContext) -> dict[str, Any]:
    """Write `graph.json`: the same bytes for the same network, wherever it is traced.

    Returns:
        how many groups there are, how many may be cut, and their units.
    """
    model = load_model(ctx.input("base_model"))
    # only their shape counts: cuts are checked on noise
    images = torch.zeros(1, *ctx.data_card.image_shape)
    settings = ctx.config.trace
    graph = trace(model, images, open_statistics=settings.open_statistics)
    graph = graph.with_frozen(
        {
            group.id: "frozen by trace.freeze"
            for group in graph.groups
            if any(fnmatch.fnmatch(group.id, pattern) for pattern in settings.freeze)
        }
    )
    ctx.write("graph", graph.to_dict(), layout)
    return {
        "groups": len(graph.groups),
        "prunable": len(graph.prunable),
        "units": sum(group.size for group in graph.prunable),
        "frozen": len(graph.frozen),
    }

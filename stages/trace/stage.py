"""The trace stage: base model in, channel groups out."""

from __future__ import annotations

import fnmatch
from typing import Any

from pipeline.run.stage import StageContext
from pipeline.run.store import write_bytes


class TraceStage:
    """`graph.json` has the same bytes for the same network, wherever it is traced."""

    def run(self, ctx: StageContext) -> dict[str, Any]:
        import torch

        from pipeline.models.files import load_model
        from stages.trace.tracing import trace

        model = load_model(ctx.input("base_model"))
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
        write_bytes(ctx.out / "graph.json", graph.to_json().encode())
        return {
            "groups": len(graph.groups),
            "prunable": len(graph.prunable),
            "units": sum(group.size for group in graph.prunable),
            "frozen": len(graph.frozen),
        }


STAGE = TraceStage

"""The prune stage: cut the planned channels out, and commit only with the proof that cut equals
masked.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.errors import ArtifactError, Refused
from pipeline.run.stage import Stage, StageContext
from pipeline.run.store import write_json


class PruneStage(Stage):
    """Compares the cut network with the silenced one in float64 on real images of the search
    split.
    """

    name = "prune"
    title = "cutting channels, and proving cut == masked"
    sections = ("prune",)
    reads = ("base_model", "graph", "plan")
    uses_data = True
    memory_key = "prune.images"
    original = ("graph",)

    def run(self, ctx: StageContext) -> dict[str, Any]:
        from pipeline.data import load_splits
        from pipeline.models import load_model, save_model
        from stages.prune import ChannelPlan, CostModel, prove, prune
        from stages.trace import ChannelGraph

        model = load_model(ctx.input("base_model"))
        graph = ChannelGraph.from_json(ctx.input("graph").read_text())
        plan = ChannelPlan.from_json(ctx.input("plan").read_text())
        unknown = [group for group in plan.keep if group not in graph]
        if unknown:
            raise ArtifactError(
                f"plan.json: made for another network, {unknown[0]} is no group",
                hint="rlp stage search",
            )
        x, _ = load_splits(ctx.config.data, seed=ctx.seed).search.take(
            ctx.config.prune.images, seed=ctx.seed
        )
        proof = prove(model, graph, plan, (x,))
        if not proof.relative <= ctx.config.prune.tolerance:
            raise Refused(
                f"cut differs from masked by {proof.relative:.1e} of the largest output, "
                f"{ctx.config.prune.tolerance:.0e} allowed",
                hint="rlp inspect graph.json shows the groups; trace.freeze excludes one",
            )
        small = prune(model, graph, plan)
        save_model(small, ctx.out, input_shape=ctx.data_card.image_shape)
        costs, kept = CostModel(graph), {group: len(units) for group, units in plan.keep.items()}
        first = CostModel(ChannelGraph.from_json(ctx.original("graph").read_text()))
        counts = {
            "macs": {"before": first.macs(), "after": costs.macs(kept)},
            "params": {"before": first.params(), "after": costs.params(kept)},
        }
        document = {
            "kind": "cut",
            "schema_version": 1,
            "proof": {
                **asdict(proof),
                "images": len(x),
                "tolerance": ctx.config.prune.tolerance,
                "dtype": "float64",
            },
            **counts,
            "layers": {
                "before": [asdict(row) for row in first.layers()],
                "after": [asdict(row) for row in costs.layers(kept)],
            },
        }
        write_json(ctx.out / "prune.json", document)
        return {
            "macs_fraction": counts["macs"]["after"] / counts["macs"]["before"],
            "params_fraction": counts["params"]["after"] / counts["params"]["before"],
            "cut_minus_masked": proof.relative,
        }


STAGE = PruneStage

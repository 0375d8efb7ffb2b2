"""The prune stage: cut the planned channels out, and commit only with the proof that cut equals
masked.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.channels.costs import CostModel
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.data.load import load_splits
from pipeline.errors import ArtifactError, Command, Hint, Key, Refused
from pipeline.models.files import load_model, save_model
from pipeline.run.stage import StageContext
from stages.prune.proof import Proof, prove


def run(ctx: StageContext) -> dict[str, Any]:
    """Write the cut network and `prune.json`; returns what is left of MACs and parameters as
    fractions of the original, and the largest relative difference that the proof found.

    Raises:
        ArtifactError: the plan is of another network.
        Refused: cut and masked network differ by more than `prune.tolerance`.
    """
    settings, model = ctx.config.prune, load_model(ctx.input("rotated_model"))
    graph = ChannelGraph.from_dict(ctx.read("graph"))
    plan = ChannelPlan.from_dict(ctx.read("plan"))
    _check_plan(plan, graph, ctx.run)
    splits = load_splits(ctx.config.data, seed=ctx.seed)
    x, _ = splits.search.take(settings.images, seed=ctx.seed)
    proof = prove(model, graph, plan, (x,))
    _check_proof(proof, settings.tolerance)
    save_model(cut(model, graph, plan), ctx.out, input_shape=ctx.data_card.image_shape)
    original = CostModel(ChannelGraph.from_dict(ctx.read_original("graph")))
    counts = _counts(original, CostModel(graph), plan)
    evidence = {**asdict(proof), "images": len(x), "tolerance": settings.tolerance}
    document = {
        "proof": {**evidence, "dtype": "float64"},
        **counts,
    }
    ctx.write("cut", document)
    return {
        "macs_fraction": counts["macs"]["after"] / counts["macs"]["before"],
        "params_fraction": counts["params"]["after"] / counts["params"]["before"],
        "cut_minus_masked": proof.relative,
    }


def _check_plan(plan: ChannelPlan, graph: ChannelGraph, run: Path) -> None:
    """The surgery refuses such a plan as well, but does not know which stage made it."""
    unknown = [group for group in plan.keep if group not in graph]
    if unknown:
        raise ArtifactError(
            f"plan.json: made for another network, {unknown[0]} is no group",
            hint=Hint.rerun("search", run),
        )


def _check_proof(proof: Proof, tolerance: float) -> None:
    if not proof.relative <= tolerance:  # also where it is not a number
        raise Refused(
            f"cut differs from masked by {proof.relative:.1e} of the largest output, "
            f"{tolerance:.0e} allowed",
            hint=Hint(
                Command("inspect", "graph.json"),
                " shows the groups; ",
                Key("trace.freeze"),
                " excludes one",
            ),
        )


def _counts(original: CostModel, costs: CostModel, plan: ChannelPlan) -> dict[str, Any]:
    """Before: of the original network; after: of what this cut leaves."""
    kept, drop = plan.counts(), plan.drop
    return {
        "macs": {"before": original.macs(), "after": costs.macs(kept, drop)},
        "params": {"before": original.params(), "after": costs.params(kept, drop)},
        "layers": {
            "before": [asdict(row) for row in original.layers()],
            "after": [asdict(row) for row in costs.layers(kept, drop)],
        },
    }

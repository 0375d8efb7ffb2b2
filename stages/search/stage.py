"""The search stage: network, graph and images in; plan, trials and `search.json` out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.graph_text import layout
from pipeline.data.load import load_splits
from pipeline.models.files import load_model
from pipeline.run.artifacts import TRIALS
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file, write_bytes
from pipeline.training.machine import all_cores, device_for, exact_float32
from stages.search.problem import Network
from stages.search.results.journal import Journal
from stages.search.results.scratch import Scratch
from stages.search.session import SearchSession
from stages.search.settled import Settled, settle


def run(ctx: StageContext) -> dict[str, Any]:
    """Distribute the budget; writes plan.json, trials.jsonl, search.json and front.json.

    Interrupted and started again, it continues at its last trial and ends with the same plan.

    Returns:
        strategy, number of trials, score and accuracy of the plan, and its share of the
        original's costs.
    Raises:
        UsageError: the budget cannot be met, or asks for nothing.
        Refused: nothing can be pruned, no finalist measured within a latency budget, or no plan
            within a drop of accuracy.
    """
    device = device_for(ctx.config.device)
    network = original = _network(ctx.input("rotated_model"), ctx.read("graph"), device)
    if not ctx.round.first:
        original = _network(ctx.original("base_model"), ctx.read_original("graph"), device)
    scratch = Scratch(ctx.work)
    with all_cores(), exact_float32():
        splits = load_splits(ctx.config.data, seed=ctx.seed).to(device)
        settled = settle(ctx, original, splits, scratch)
        journal = Journal.open(ctx.work / TRIALS.file, _header(ctx, network, settled))
        session = SearchSession(ctx, network, original, splits, settled, journal, scratch)
        found = session.run()
    ctx.write("plan", found.plan.to_dict(), layout)
    write_bytes(ctx.out / TRIALS.file, journal.path.read_bytes())
    ctx.write("search", found.document)
    ctx.write("front", found.front)
    return found.numbers


def _network(folder: Path, graph: dict[str, Any], device: torch.device) -> Network:
    model = load_model(folder)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(model, ChannelGraph.from_dict(graph))


def _header(ctx: StageContext, network: Network, settled: Settled) -> dict[str, Any]:
    """What a journal must have been written for to be continued."""
    came_to = {"align": settled.alignment.align, "precision": settled.precision.label}
    settings = ctx.config.search.model_dump(mode="json") | came_to
    settings.pop("workers")
    folder = ctx.input("rotated_model")
    parts = [sha256_file(folder / "model.safetensors"), sha256_file(ctx.input("graph"))]
    of = [settings, ctx.config.data.model_dump(mode="json"), ctx.seed]
    parts.append(json.dumps(of, sort_keys=True))
    groups = [group.id for group in network.graph.prunable]
    of_all = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return TRIALS.stamp({"groups": groups, "seed": ctx.seed, "settings": settings, "of": of_all})

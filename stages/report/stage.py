"""The report stage: one self-contained page for people, one summary for machines."""

from __future__ import annotations

from typing import Any

from pipeline.errors import Command
from pipeline.run.artifacts import TRIALS, document
from pipeline.run.documents import as_written
from pipeline.run.manifest import device, versions
from pipeline.run.stage import StageContext
from pipeline.run.store import write_bytes
from stages.report.documents import RoundDocuments, RunDocuments
from stages.report.page import render
from stages.report.summary import PLACES, summarise
from stages.report.views.search import drop_missed, latency_missed

_OF_ROUND = ("search", "cut", "distillation")
_JSON = (
    *("data", "train", "graph", "rotation", "plan", "front", *_OF_ROUND, "reconstruction"),
    *("parity", "quantization", "benchmark"),
)


def run(ctx: StageContext) -> dict[str, Any]:
    """Write what the other stages found.

    Reads every JSON document of the run, the trials of the last search, and the manifests;
    writes `report.html` and `summary.json`, which is what `rlp pipeline run --json` prints.

    Returns:
        verdict, speedup and test accuracy.
    Raises:
        ArtifactError: a document is missing, damaged, or not what was committed.
    """
    found = _documents(ctx)
    with as_written("the report"):
        summary = summarise(
            ctx.run_name,
            found.benchmark,
            found.parity,
            found.quantization,
            **PLACES,
        )
        page = render(
            ctx.config,
            found,
            summary,
            run_name=ctx.run_name,
            config_name=ctx.config_name,
            device=device(),
            run=str(ctx.run),
            commands=_commands(ctx),
            versions=versions(),
        )
        budget, again = ctx.config.search.budget, Command.run_again(ctx.config_name, ctx.run)
        missed = (
            drop_missed(found.search, found.distillation, again),
            latency_missed(found.search, found.benchmark, budget, again),
        )
    for sentence in filter(None, missed):
        ctx.warn(sentence)
    ctx.write("summary", summary)
    write_bytes(ctx.out / "report.html", page.encode())
    speedup = summary["speedup"]
    return {
        "verdict": speedup["verdict"],
        "speedup": speedup["ratio"],
        "test_accuracy": summary["final"]["accuracy"],
    }


def _documents(ctx: StageContext) -> RunDocuments:
    documents = (map(document(kind).read, ctx.every_round(kind)) for kind in _OF_ROUND)
    return RunDocuments(
        **{kind: ctx.read(kind) for kind in _JSON},
        trials=TRIALS.read(ctx.input("trials")),
        rounds=[RoundDocuments(*of_one) for of_one in zip(*documents, strict=True)],
        manifests=ctx.manifests,
    )


def _commands(ctx: StageContext) -> str:
    run = str(ctx.run)
    again = Command.run_again(ctx.config_name, ctx.run)
    return f"{again}\n{Command('check', run)}"

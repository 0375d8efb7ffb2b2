"""The report stage: one self-contained page for people, one summary for machines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib import resources
from typing import Any

from pipeline.artifacts import KINDS
from pipeline.manifest import device, read_manifest, versions
from pipeline.stage import Stage, StageContext
from pipeline.store import read_json, write_bytes, write_json
from stages.report import view
from stages.report.summary import summarise

_JSON = ("data", "graph", "plan", "search", "cut", "distillation", "parity", "benchmark")


class ReportStage(Stage):
    """Reads every artefact that holds numbers; computes none of its own."""

    name = "report"
    title = "writing the page and the summary"
    sections = ("report", "model")
    reads = (*_JSON, "onnx")

    def run(self, ctx: StageContext) -> dict[str, Any]:
        found = {kind: read_json(ctx.input(kind), max_bytes=KINDS[kind].max_bytes) for kind in _JSON}
        onnx = f"{KINDS['onnx'].maker}/{KINDS['onnx'].files[0]}"
        summary = summarise(ctx.run_name, found["benchmark"], found["parity"], "report/report.html", onnx)
        write_json(ctx.out / "summary.json", summary)
        write_bytes(ctx.out / "report.html", _page(ctx, found, summary).encode())
        speedup = summary["speedup"]
        return {
            "verdict": speedup["verdict"],
            "speedup": speedup["ratio"],
            "test_accuracy": summary["final"]["accuracy"],
        }


def _page(ctx: StageContext, found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    import jinja2
    import yaml

    run = ctx.out.parent
    manifests = {stage: read_manifest(run, stage) for stage in dict.fromkeys(KINDS[kind].maker for kind in KINDS)}
    template = resources.files("stages.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    search, benchmark = found["search"], found["benchmark"]
    settings = ctx.config.model_dump(mode="json")
    machine = benchmark["machine"]
    return environment.from_string(template).render(
        title=ctx.config.report.title or ctx.run_name,
        model=ctx.config.model.source,
        machine=f"{device()}, {machine['cores']} cores",
        data=summary["data"],
        speedup=summary["speedup"],
        headline=view.headline(summary["speedup"], summary["base"], summary["final"]),
        before_after=view.before_after(summary["base"], summary["final"]),
        settings=view.setting_rows(benchmark["settings"]),
        why=benchmark.get("why", {}).get("causes", []),
        channels=view.channel_sentence(search, found["graph"]),
        frozen=[(group["id"], group["reason"]) for group in found["graph"]["groups"] if not group["prunable"]],
        proof=view.proof_sentence(found["cut"]),
        search_sentence=view.search_sentence(search),
        controls=view.control_rows(search),
        recovery_sentence=view.recovery_sentence(found["distillation"]),
        parity_sentence=view.parity_sentence(found["parity"]),
        plots={
            "speedups": view.speedup_plot(benchmark["settings"]),
            "widths": view.plots.widths([(g["id"], g["size"], g["kept"]) for g in search["groups"]]),
            "search": view.search_plot(search),
            "distillation": view.recovery_plot(found["distillation"]),
        },
        commands=_commands(ctx),
        settings_yaml=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        artefacts=view.artefact_rows(
            {stage: manifest for stage, manifest in manifests.items() if manifest and stage != "report"}
        ),
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
        fingerprint=f"Machine {machine['id']}: {machine['system']}.",
    )


def _commands(ctx: StageContext) -> str:
    run = shlex.quote(str(ctx.out.parent))
    return f"rlp pipeline run {shlex.quote(ctx.config_name)} --run-dir {run}\nrlp check {run}"


STAGE = ReportStage

"""The report stage: one self-contained page for people, one summary for machines."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from itertools import repeat
from pathlib import Path
from typing import Any

from pipeline.errors import Command
from pipeline.run.artifacts import KINDS
from pipeline.run.manifest import device, read_manifest, versions
from pipeline.run.stage import Stage, StageContext
from pipeline.run.store import parse_json, read_bytes, read_json, write_bytes, write_json
from stages.report import search_view, timing_view, view
from stages.report.search_view import Round
from stages.report.summary import summarise

_JSON = ("data", "graph", "plan", "search", "cut", "distillation", "parity", "benchmark")
_ROUND = ("search", "cut", "distillation")


class ReportStage(Stage):
    """Reads every artefact that holds numbers; computes none of its own."""

    name = "report"
    title = "writing the page and the summary"
    version = 2
    sections = ("report", "model")
    reads = (*_JSON, "trials", "onnx")
    every_round = _ROUND

    def run(self, ctx: StageContext) -> dict[str, Any]:
        found = {kind: _read(ctx, kind) for kind in _JSON}
        found["trials"] = _lines(ctx, "trials")
        documents = (map(_read_file, ctx.every_round(kind), repeat(kind)) for kind in _ROUND)
        found["rounds"] = [Round(*of_one) for of_one in zip(*documents, strict=True)]
        onnx = f"{KINDS['onnx'].maker}/{KINDS['onnx'].files[0]}"
        summary = summarise(
            ctx.run_name, found["benchmark"], found["parity"], "report/report.html", onnx
        )
        write_json(ctx.out / "summary.json", summary)
        write_bytes(ctx.out / "report.html", _page(ctx, found, summary).encode())
        speedup = summary["speedup"]
        return {
            "verdict": speedup["verdict"],
            "speedup": speedup["ratio"],
            "test_accuracy": summary["final"]["accuracy"],
        }


def _read(ctx: StageContext, kind: str) -> Any:
    return _read_file(ctx.input(kind), kind)


def _read_file(path: Path, kind: str) -> Any:
    return read_json(path, max_bytes=KINDS[kind].max_bytes)


def _lines(ctx: StageContext, kind: str) -> list[Any]:
    path = ctx.input(kind)
    lines = read_bytes(path, max_bytes=KINDS[kind].max_bytes).splitlines()
    return [parse_json(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _page(ctx: StageContext, found: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    import jinja2
    import yaml

    run = ctx.out.parent
    places = dict.fromkeys(KINDS[kind].maker for kind in KINDS)
    earlier = {source: None for source in ctx.places.values() if "/" in source}
    manifests = {stage: read_manifest(run, stage) for stage in (*earlier, *places)}
    template = resources.files("stages.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    search, benchmark, rounds = found["search"], found["benchmark"], found["rounds"]
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
        against=timing_view.against_rows(benchmark),
        roofline=timing_view.roofline_sentence(benchmark),
        alignment=timing_view.alignment_block(search, benchmark, found["plan"]),
        channels=search_view.channel_sentence(search, found["graph"]),
        frozen=[
            (group["id"], group["reason"])
            for group in found["graph"]["groups"]
            if not group["prunable"]
        ],
        proof=view.proof_sentence(found["cut"]),
        search_sentence=search_view.search_sentence(search),
        rounds=search_view.round_rows(rounds) if len(rounds) > 1 else [],
        strategies=search_view.strategy_rows(search),
        score_unit=search_view.unit_of(search),
        layers=search_view.layer_rows(found["cut"]),
        latency_sentence=search_view.latency_sentence(search),
        recovery_sentence=view.recovery_sentence(found["distillation"]),
        parity_sentence=view.parity_sentence(found["parity"]),
        plots={
            "speedups": view.speedup_plot(benchmark["settings"]),
            "widths": search_view.keep_plot(rounds),
            "search": search_view.search_plot(rounds),
            "pareto": search_view.pareto_plot(search, found["trials"]),
            "latency": search_view.latency_plot(search),
            "distillation": view.recovery_plot(found["distillation"]),
        },
        commands=_commands(ctx),
        settings_yaml=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        artefacts=view.artefact_rows(
            {
                stage: manifest
                for stage, manifest in manifests.items()
                if manifest and stage != "report"
            }
        ),
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
        fingerprint=f"Machine {machine['id']}: {machine['system']}.",
    )


def _commands(ctx: StageContext) -> str:
    run = str(ctx.run)
    again = Command("pipeline", "run", ctx.config_name, "--run-dir", run)
    return f"{again}\n{Command('check', run)}"


STAGE = ReportStage

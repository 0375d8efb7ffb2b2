"""The page: what every section of `page.html.j2` is given, and the template filled."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

from pipeline.claims import busy_clause
from pipeline.config.schema import Config
from pipeline.config.yaml_nodes import dump
from pipeline.errors import Command
from stages.report.documents import Document, RunDocuments
from stages.report.views import alignment, recovery, search, search_figures, timing, variants


def render(
    config: Config,
    found: RunDocuments,
    summary: Document,
    *,
    run_name: str,
    config_name: str,
    device: str,
    run: str,
    commands: str,
    versions: Mapping[str, str],
) -> str:
    """One self-contained HTML page.

    Args:
        summary: `summary.json`, whose numbers the page repeats.
        config_name: of the file, as it was typed.
        device: processor that the run was computed on.
        run: its folder, as commands name it.
        commands: what makes the run again and checks it.
        versions: of packages, by name.
    """
    template = resources.files("stages.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,  # names of layers, classes and files are the user's
        undefined=jinja2.StrictUndefined,  # a number that is missing is a bug, not a blank
        trim_blocks=True,
    )
    machine = found.benchmark["machine"]
    settings = config.model_dump(mode="json")
    return environment.from_string(template).render(
        title=config.report.title or run_name,
        model=config.model.source,
        machine=f"{device}, {machine['cores']} cores",
        commands=commands,
        settings_yaml=dump(settings),
        artefacts=artefact_rows(found.manifests),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        fingerprint=f"Machine {machine['id']}: {machine['system']}.",
        plots=_plots(found),
        **_timing(found, summary, Command("stage", "benchmark", "--run", run, "--force")),
        latency_missed=search.latency_missed(
            found.search, found.benchmark, config.search.budget, config_name
        ),
        **_cut_and_search(found, config_name),
    )


def _timing(found: RunDocuments, summary: Document, again: str) -> dict[str, Any]:
    benchmark, speedup = found.benchmark, summary["speedup"]
    sides = summary["base"], summary["final"]
    (change,) = (row["accuracy_change"] for row in summary["variants"] if row["chosen"])
    said = timing.headline(speedup, *sides, change)
    return {
        "data": summary["data"],
        "speedup": speedup,
        "headline": said + busy_clause(speedup["doubts"], again),
        "tone": _tone(speedup, summary["base"]),
        "before_after": timing.before_after(*sides, change),
        "settings": timing.setting_rows(benchmark["settings"]),
        "variants": variants.variant_rows(benchmark["variants"]),
        "remarks": summary["remarks"],
        "why_int8": benchmark.get("why_int8", {}).get("causes", []),
        "quantization": variants.quantization_sentences(found.quantization),
        "tried": variants.tried_rows(found.quantization),
        "why": benchmark.get("why", {}).get("causes", []),
        "against": timing.against_rows(benchmark),
        "roofline": timing.roofline_sentence(benchmark),
        "alignment": alignment.alignment_block(found.search, benchmark, found.plan),
        "parity_sentence": recovery.parity_sentence(found.parity),
    }


def _tone(speedup: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The class of the headline: green only for good news that can be relied on."""
    relied_on = not speedup["doubts"] and not base["near_chance"]
    return "good" if speedup["verdict"] == "faster" and relied_on else "bad"


def _cut_and_search(found: RunDocuments, config_name: str) -> dict[str, Any]:
    groups = found.graph["groups"]
    return {
        "channels": search.channel_sentence(found.search, found.graph),
        "frozen": [(group["id"], group["reason"]) for group in groups if not group["prunable"]],
        "layers": search.layer_rows(found.cut),
        "proof": recovery.proof_sentence(found.cut),
        "rotated": recovery.rotation_sentence(found.rotation),
        "search_sentence": search.search_sentence(found.search),
        "rounds": search.round_rows(found.rounds) if len(found.rounds) > 1 else [],
        "strategies": search.strategy_rows(found.search),
        "score_unit": search.unit_of(found.search),
        "latency_sentence": search.latency_sentence(found.search),
        "drop_sentence": search.drop_sentence(found.search),
        "drop_missed": search.drop_missed(found.search, found.distillation, config_name),
        "recovery_sentence": recovery.recovery_sentence(found.reconstruction, found.distillation),
    }


def _plots(found: RunDocuments) -> dict[str, str]:
    return {
        "speedups": timing.speedup_plot(found.benchmark["settings"]),
        "widths": search_figures.keep_plot(found.rounds),
        "search": search_figures.search_plot(found.rounds),
        "pareto": search_figures.pareto_plot(found.search, found.trials),
        "front": search_figures.front_plot(found.front, found.search, found.reconstruction),
        "float_nodes": variants.curve_plot(found.quantization),
        "latency": search_figures.latency_plot(found.search),
        "distillation": recovery.recovery_plot(found.distillation),
    }


def artefact_rows(manifests: Mapping[str, Document]) -> list[tuple[str, str, str]]:
    """Every committed file with size and sha256."""
    return [
        (f"{stage}/{name}", f"{entry['bytes']:,}", entry["sha256"])
        for stage, manifest in manifests.items()
        for name, entry in manifest["outputs"].items()
    ]

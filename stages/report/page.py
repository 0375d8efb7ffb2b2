"""The page: what every section of `page.html.j2` is given, and the template filled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2

from pipeline.claims import busy_clause
from pipeline.config.schema import Config
from pipeline.config.yaml_nodes import dump
from pipeline.errors import Command
from pipeline.run.variants import PRECISIONS
from pipeline.words import size
from stages.report.documents import Document, RunDocuments
from stages.report.views import (
    alignment,
    answer,
    classes,
    handover,
    layers,
    next_steps,
    recovery,
    search,
    search_figures,
    timing,
    variants,
)


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
    machine, again = found.benchmark["machine"], Command.run_again(config_name, run)
    return _template().render(
        title=config.report.title or run_name,
        model=config.model.source,
        machine=f"{device}, {machine['cores']} cores",
        started=_started(found),
        commands=commands,
        settings_yaml=dump(config.model_dump(mode="json")),
        artefacts=artefact_rows(found.manifests),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        fingerprint=f"Machine {machine['id']}: {machine['system']}.",
        **_answer(found, summary, Command("stage", "benchmark", "--run", run, "--force")),
        snippets=handover.use_snippets(run),
        deploy_rows=handover.deploy_rows(found.manifests),
        steps=next_steps.next_steps(config, found, summary, run, config_name),
        **_timing(found),
        latency_missed=search.latency_missed(
            found.search, found.benchmark, config.search.budget, again
        ),
        **_cut_and_search(found, again),
    )


def _template() -> jinja2.Template:
    here = resources.files("stages.report")
    files = ("page.html.j2", "macros.html.j2", "page.css")
    environment = jinja2.Environment(
        autoescape=True,  # names of layers, classes and files are the user's
        undefined=jinja2.StrictUndefined,  # a number that is missing is a bug, not a blank
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.DictLoader(
            {name: here.joinpath(name).read_text(encoding="utf-8") for name in files}
        ),
    )
    return environment.get_template("page.html.j2")


def _started(found: RunDocuments) -> str:
    """When the benchmark began, to the minute; empty where nothing says so."""
    began = found.manifests.get("benchmark", {}).get("started")
    return f"{datetime.fromisoformat(began):%Y-%m-%d %H:%M %Z}" if began else ""


def _answer(found: RunDocuments, summary: Document, again: str) -> dict[str, Any]:
    benchmark, speedup = found.benchmark, summary["speedup"]
    sides = summary["base"], summary["final"]
    (change,) = (row["accuracy_change"] for row in summary["variants"] if row["chosen"])
    return {
        "data": summary["data"],
        "speedup": speedup,
        "headline": answer.headline(speedup, *sides, change),
        "conditions": answer.conditions(speedup, summary["data"]["test_images"]),
        "busy": busy_clause(speedup["doubts"], again).removeprefix("; "),
        "tone": _tone(speedup, summary["base"]),
        "tiles": answer.tiles(*sides, change),
        "variants": variants.variant_rows(benchmark["variants"]),
        "remarks": summary["remarks"],
        "answer_plot": answer.answer_plot(benchmark),
    }


def _tone(speedup: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The class of the headline: green only for good news that can be relied on."""
    relied_on = not speedup["doubts"] and not base["near_chance"]
    return "good" if speedup["verdict"] == "faster" and relied_on else "bad"


def _timing(found: RunDocuments) -> dict[str, Any]:
    benchmark = found.benchmark
    return {
        "setting_tables": timing.setting_tables(benchmark),
        "measured": timing.measured_sentence(benchmark, _started(found)),
        "speedup_plot": timing.speedup_plot(benchmark["settings"]),
        "distribution_plot": timing.distribution_plot(benchmark["variants"]),
        "why": benchmark.get("why", {}).get("causes", []),
        "why_less": {
            name: causes
            for precision, name in PRECISIONS.items()
            if (causes := benchmark.get(f"why_{precision}", {}).get("causes"))
        },
        "roofline": timing.roofline_sentence(benchmark),
        "layers": layers.layer_rows(found.cut, benchmark),
        "layer_plot": layers.layer_plot(benchmark),
        "operators": layers.operator_rows(benchmark),
        "classes": classes.class_block(benchmark, found.data["classes"]),
        "quantization": variants.quantization_sentences(found.quantization),
        "tried": variants.tried_rows(found.quantization),
        "float_nodes_plot": variants.curve_plot(found.quantization),
        "alignment": alignment.alignment_block(found.search, benchmark, found.plan),
        "parity_sentence": recovery.parity_sentence(found.parity),
    }


def _cut_and_search(found: RunDocuments, again: Command) -> dict[str, Any]:
    groups = found.graph["groups"]
    return {
        "channels": search.channel_sentence(found.search, found.graph),
        "widths_plot": search_figures.keep_plot(found.rounds),
        "frozen": [group for group in groups if not group["prunable"]],
        "proof": recovery.proof_sentence(found.cut),
        "rotated": recovery.rotation_sentence(found.rotation),
        "search_sentence": search.search_sentence(found.search),
        "drop_sentence": search.drop_sentence(found.search),
        "drop_missed": search.drop_missed(found.search, found.distillation, again),
        "rounds": search.round_rows(found.rounds) if len(found.rounds) > 1 else [],
        "strategies": search.strategy_rows(found.search),
        "controlled": len(found.search["strategies"]) > 1,
        "score_unit": search.unit_of(found.search),
        "latency_sentence": search.latency_sentence(found.search),
        "figures": _search_figures(found),
        "recovery_sentence": recovery.recovery_sentence(found.reconstruction, found.distillation),
        "recovery_plot": recovery.recovery_plot(
            found.reconstruction, found.distillation, found.train["images"]["search"]
        ),
        "search_images": found.train["images"]["search"],
    }


def _search_figures(found: RunDocuments) -> list[tuple[str, str]]:
    """Plots of the search that there are, each with its caption."""
    drawn = (
        (
            search_figures.front_plot(found.front, found.search, found.reconstruction),
            search_figures.front_caption(found.front),
        ),
        (search_figures.search_plot(found.rounds), search_figures.search_caption(found.search)),
        (
            search_figures.pareto_plot(found.search, found.trials),
            search_figures.PARETO_CAPTION,
        ),
        (search_figures.latency_plot(found.search), search_figures.LATENCY_CAPTION),
    )
    return [(plot, caption) for plot, caption in drawn if plot]


def artefact_rows(manifests: Mapping[str, Document]) -> list[dict[str, str]]:
    """Every committed file with size and sha256."""
    return [
        {"file": f"{stage}/{name}", "size": size(entry["bytes"]), "sha256": entry["sha256"]}
        for stage, manifest in manifests.items()
        for name, entry in manifest["outputs"].items()
    ]

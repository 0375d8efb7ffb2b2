"""`rlp check RUN`: integrity first, then the gates; a yes or no for CI."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import attach, command
from pipeline.cli.completion import complete_run
from pipeline.run.variants import VARIANTS


def register(app: typer.Typer) -> None:
    command(app, "check", keys=("run", "variant", "passed", "stages", "gates", "unlisted"))(check)


_Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder, such as artifacts/quickstart.",
        autocompletion=complete_run,
    ),
]
_MaxAccuracyDrop = Annotated[
    float | None,
    typer.Option(
        metavar="PTS", min=-100, max=100, help="Most points of test accuracy that may be lost."
    ),
]
_MinAccuracy = Annotated[
    float | None, typer.Option(metavar="FRACTION", min=0, max=1, help="Least test accuracy.")
]
_MinSpeedup = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        help="Least measured speedup; above 1 its interval must also exclude 1.",
    ),
]
_MaxLatencyMs = Annotated[
    float | None, typer.Option(metavar="MS", min=0, help="Most p50 latency, in milliseconds.")
]
_MaxMacs = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Most multiply-accumulates.")
]
_MaxParams = Annotated[int | None, typer.Option(metavar="N", min=0, help="Most parameters.")]
_MaxBytes = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Largest ONNX file, in bytes.")
]
_MinAgreement = Annotated[
    float | None,
    typer.Option(
        metavar="FRACTION",
        min=0,
        max=1,
        help="Least top-1 agreement with PyTorch; of an INT8 file with its fp32 file.",
    ),
]
_Variant = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"What the gates ask about: {', '.join(VARIANTS)}. Default: the delivered one.",
    ),
]


def check(
    run: _Run,
    max_accuracy_drop: _MaxAccuracyDrop = None,
    min_accuracy: _MinAccuracy = None,
    min_speedup: _MinSpeedup = None,
    max_latency_ms: _MaxLatencyMs = None,
    max_macs: _MaxMacs = None,
    max_params: _MaxParams = None,
    max_bytes: _MaxBytes = None,
    min_agreement: _MinAgreement = None,
    variant: _Variant = None,
) -> dict[str, Any]:
    """Verify every hash and every input of a run, then its gates. Exit 0 yes, 1 a gate missed, 3
    damaged or stale.

    The accuracy drop and the speedup of every variant are against the original in fp32.
    Files that belong to no stage are warned of: nothing reads them, so they change no answer.
    """
    from pipeline.cli import running
    from pipeline.errors import UsageError
    from pipeline.run.documents import as_written

    limits = (max_accuracy_drop, min_accuracy, min_speedup, max_latency_ms, min_agreement)
    if any(limit is not None and not math.isfinite(limit) for limit in limits):
        raise UsageError(
            "a gate must be a finite number", hint="leave the gate out to ask for nothing"
        )
    doc = _intact(run)
    summary = running.load_summary(run)
    with as_written(f"the summary of {run}"):
        asked = _asked(summary["variants"], variant, run)
        doc["variant"] = asked["name"]
        drop = 100 * (summary["base"]["accuracy"] - asked["accuracy"])
        slow = min_speedup is not None and min_speedup > 1 and asked["verdict"] != "faster"
        gates = [
            _gate("accuracy drop, points", drop, max_accuracy_drop, most=True),
            _gate("accuracy", asked["accuracy"], min_accuracy),
            _gate(
                "speedup" + (f" ({asked['verdict']})" if slow else ""),
                0.0 if slow else asked["ratio"],
                min_speedup,
            ),
            _gate("p50 latency, ms", asked["latency_ms"]["p50"], max_latency_ms, most=True),
            _gate("MACs", asked["macs"], max_macs, most=True),
            _gate("parameters", asked["params"], max_params, most=True),
            _gate("bytes", asked["bytes"], max_bytes, most=True),
            _gate("top-1 agreement", asked["top1_agreement"], min_agreement),
        ]
        doc["gates"] = [gate for gate in gates if gate]
        if max_accuracy_drop is not None and asked.get("accuracy_change"):
            _say_how_sure(doc["gates"][0], asked["accuracy_change"])
        doc["passed"] = all(gate["passed"] for gate in doc["gates"])
    _report(doc, run)
    return doc


def _say_how_sure(gate: dict[str, Any], change: dict[str, Any]) -> None:
    """Add the drop's interval to its gate, and a warning where it holds the limit: other images of
    the same kind might then answer otherwise.
    """
    from pipeline.paired import images_to_decide

    low, high = sorted(-edge for edge in change["ci95"])
    gate |= {"ci95": [low, high], "decided": not low <= gate["limit"] <= high}
    if gate["decided"]:
        return
    needed = images_to_decide(change, gate["limit"])
    more = f"; about {needed:,} would" if needed else ""
    console.warn(
        f"{change['images']:,} test images cannot tell a drop of {_text(gate['value'])} points "
        f"({low:.2f} to {high:.2f}) from the limit of {gate['limit']:.6g}{more}"
    )


def _asked(variants: list[dict[str, Any]], name: str | None, run: Path) -> dict[str, Any]:
    """The variant of this name, by default the delivered one."""
    from pipeline.errors import Hint, UsageError

    for row in variants:
        if row["chosen"] if name is None else row["name"] == name:
            return row
    there = ", ".join(row["name"] for row in variants)
    raise UsageError(
        f"--variant {name}: not in {run}, which has {there}",
        hint=Hint.command("check", str(run), says="asks about the delivered one"),
    )


def _intact(run: Path) -> dict[str, Any]:
    """The document without gates; ArtifactError when a stage is damaged or stale."""
    from pipeline.cli import planned, running
    from pipeline.errors import ArtifactError, Command, Hint
    from pipeline.run.planner import Planner
    from pipeline.run.runner import read_run

    config, name = read_run(run)
    chain = planned.stages_of(config)
    steps = Planner(chain, config, run, outside=False).plan()
    stages = [
        {"stage": s.stage.name, "fresh": s.action == "reuse", "reason": s.reason} for s in steps
    ]
    doc: dict[str, Any] = {"run": str(run), "variant": None, "passed": False, "stages": stages}
    doc["gates"] = []
    doc["unlisted"] = running.unknown_files(run, chain, config.rounds)
    for unknown in doc["unlisted"]:
        console.warn(f"{run / unknown}: belongs to no stage of this run, and nothing reads it")
    bad = [stage for stage in stages if not stage["fresh"]]
    rest = Command("pipeline", "run", name, "--run-dir", str(run))
    if bad:
        problems = [f"{stage['stage']}: {stage['reason']}" for stage in bad]
        again = Command("stage", str(bad[0]["stage"]), "--run", str(run), "--force")
        hint = Hint(again, ", then ", rest, " for what follows")
        raise attach(ArtifactError(problems[0], hint=hint, details=problems[1:]), doc)
    outputs = {step.stage.name: step.manifest["outputs"] for step in steps if step.manifest}
    if problems := _made_up(run, outputs):
        hint = Hint("the hashes are right, the contents are not; ", rest, " --force measures anew")
        raise attach(ArtifactError(problems[0], hint=hint, details=problems[1:]), doc)
    return doc


def _made_up(run: Path, outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What two documents of an intact run say differently, which no run of ours does."""
    from pipeline.run.artifacts import document
    from pipeline.run.documents import as_written
    from stages.report.consistency import disagreements

    kinds = [document(name) for name in ("summary", "benchmark", "parity", "quantization")]
    if not all(kind.maker in outputs for kind in kinds):
        return []
    summary, *others = (kind.read(run / kind.maker / kind.file) for kind in kinds)
    files = {f"{at}/{name}": facts for at, of in outputs.items() for name, facts in of.items()}
    with as_written(f"{run}: a document"):
        benchmark, parity, quantization = others
        return disagreements(summary, benchmark, parity, quantization, files)


def _report(doc: dict[str, Any], run: Path) -> None:
    """The gates as a table; Refused when one is missed."""
    from pipeline.errors import Hint, Refused

    console.say(f"{doc['run']}: {len(doc['stages'])} stages intact and fresh")
    if doc["gates"]:
        console.say(f"gates of {doc['variant']} ({VARIANTS[doc['variant']]})")
    rows = [
        (
            "ok" if g["passed"] else "MISSED",
            g["gate"],
            _text(g["value"]),
            f"{g['sign']} {g['limit']:.6g}",
        )
        for g in doc["gates"]
    ]
    if rows:
        console.table(("", "gate", "value", "limit"), rows, right=("value", "limit"))
    missed = [g for g in doc["gates"] if not g["passed"]]
    if missed:
        problems = [
            f"gate missed: {g['gate']} {_text(g['value'])}, wanted {g['sign']} {g['limit']:.6g}"
            for g in missed
        ]
        better = any("accuracy" in gate["gate"] or "agreement" in gate["gate"] for gate in missed)
        hint = Hint(_change(run, better), ", or loosen the gate")
        raise attach(Refused(problems[0], hint=hint, details=problems[1:]), doc)


def _change(run: Path, better: bool) -> str:
    """What to set for a network that is more accurate, or else for a smaller one."""
    from pipeline.errors import Hint, Key
    from pipeline.run.runner import read_run

    config, _ = read_run(run)
    name, _ = config.search.budget.given
    # a larger budget keeps more channels, a larger drop of accuracy fewer
    word = "raise " if better != (name == "accuracy_drop") else "lower "
    change = Hint(word, Key(f"search.budget.{name}"))
    return Hint("raise ", Key("distill.epochs"), " or ", change) if better else change


def _gate(
    name: str, value: float | None, limit: float | None, most: bool = False
) -> dict[str, Any] | None:
    if limit is None:
        return None
    # 100 · (0.84 − 0.83) is a little above 1
    passed = value is not None and (value <= limit + 1e-9 if most else value >= limit - 1e-9)
    return {
        "gate": name,
        "value": value,
        "limit": limit,
        "sign": "≤" if most else "≥",
        "passed": passed,
    }


def _text(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.6g}"

"""What a run has, stage by stage, and how far the one is that is being made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.cli.planned import stages_of, state
from pipeline.errors import ArtifactError, Command, Hint
from pipeline.run.lock import holder
from pipeline.run.planner import Planner
from pipeline.run.progress import Unfinished, unfinished
from pipeline.run.runner import read_run
from pipeline.run.step import Step


def run_status(run: Path) -> dict[str, Any]:
    """The stages of a run, printed and as a document: state, size and duration of each."""
    config, name = read_run(run)
    live = holder(run)
    steps = Planner(stages_of(config), config, run, outside=False).plan()
    begun = [unfinished(run, step, live["pid"] if live else None) for step in steps]
    rows = [_status_row(step, far) for step, far in zip(steps, begun, strict=True)]
    shown = [_status_cells(row, far) for row, far in zip(rows, begun, strict=True)]
    held = f", held by process {live['pid']} on {live['host']}" if live else ""
    console.table(
        ("stage", "state", "size", "took", "why"),
        shown,
        title=f"{run} ({name}){held}",
        right=("size", "took"),
    )
    return {"run": str(run), "config": name, "stages": rows}


def _status_row(step: Step, far: Unfinished | None) -> dict[str, Any]:
    manifest = step.manifest
    outputs = manifest["outputs"].values() if manifest else ()
    return {
        "stage": step.stage.name,
        "state": state(step),
        "reason": step.reason,
        "bytes": sum(entry["bytes"] for entry in outputs) if manifest else None,
        "duration_s": manifest["duration_s"] if manifest else None,
        "started": manifest["started"] if manifest else None,
        "progress": asdict(far) if far else None,
    }


def _status_cells(row: dict[str, Any], far: Unfinished | None) -> tuple[str, ...]:
    return (
        row["stage"],
        str(far) if far else row["state"],
        "" if row["bytes"] is None else console.size(row["bytes"]),
        "" if row["duration_s"] is None else console.duration(row["duration_s"]),
        "" if row["state"] == "fresh" or far else row["reason"],
    )


def warn_of_stale(run: Path) -> None:
    """Warn of stages whose settings or inputs have changed since.

    Raises:
        ArtifactError: the run, or a file of it, is damaged.
    """
    config, name = read_run(run)
    steps = Planner(stages_of(config), config, run, outside=False).plan()
    for step in steps:
        if state(step) == "damaged":
            hint = Hint.command("check", str(run), says="lists all that is damaged")
            raise ArtifactError(f"{step.stage.name}: {step.reason}", hint=hint)
    stale = next((step for step in steps if state(step) == "stale"), None)
    if stale is not None:
        again = Command("pipeline", "run", name, "--run-dir", str(run))
        console.warn(
            f"the numbers of {run} are from before a change ({stale.stage.name}: {stale.reason}); "
            f"{again} makes them again"
        )

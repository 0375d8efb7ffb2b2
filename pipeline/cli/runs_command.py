"""`rlp runs`: the runs of a folder, with their answers; reads nothing but small documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command

_ANSWER = (
    "data", "base_accuracy", "accuracy", "accuracy_change", "ratio", "ci95", "verdict",
    "precision", "provider", "batch", "threads", "bytes",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    command(app, "runs", keys=("folder", "runs"))(runs)


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where runs lie; default artifacts.")
    ] = Path("artifacts"),
) -> dict[str, Any]:
    """List the runs below FOLDER with their answers: accuracy, speedup, and how far each is.

    Freshness is not looked at: `rlp pipeline status RUN` does.
    """
    from pipeline.errors import ArtifactError, Hint

    if not folder.is_dir():
        hint = Hint.command("pipeline", "run", "CONFIG", says="makes a run")
        raise ArtifactError(f"{folder}: no such folder", hint=hint)
    rows = [run_row(path) for path in sorted(_found(folder))]
    if not rows:
        console.note(f"{folder}: no runs")
    show(rows)
    return {"folder": str(folder), "runs": rows}


def _found(folder: Path) -> Iterator[Path]:
    """Runs in a folder, in folders of it, or the folder itself."""
    from pipeline.run.artifacts import RUN

    for pattern in (RUN.file, f"*/{RUN.file}", f"*/*/{RUN.file}"):
        yield from (path.parent for path in folder.glob(pattern))


def run_row(run: Path) -> dict[str, Any]:
    """One run in a few values; of one that is damaged, why."""
    from pipeline.errors import ArtifactError, RlpError
    from pipeline.run.documents import as_written

    row: dict[str, Any] = dict.fromkeys(("run", "config", "state", "made", *_ANSWER, "error"))
    row["run"] = str(run)
    try:
        with as_written(f"{run}"):
            return row | _facts(run)
    except (RlpError, OSError) as error:
        said = error.message if isinstance(error, RlpError) else error.strerror
        damaged = isinstance(error, ArtifactError)
        return row | {"state": "damaged" if damaged else "unreadable", "error": said}


def _facts(run: Path) -> dict[str, Any]:
    from pipeline.cli import planned, running
    from pipeline.run.lock import holder
    from pipeline.run.manifest import read_manifest
    from pipeline.run.runner import read_run

    config, name = read_run(run)
    stages = planned.stages_of(config)
    made = [manifest for one in stages if (manifest := read_manifest(run, one.name))]
    state = "done" if len(made) == len(stages) else f"{len(made)} of {len(stages)} stages"
    if (live := holder(run)) is not None:
        state = f"running ({live['pid']}), {len(made)} of {len(stages)} stages"
    started = max((manifest["started"] for manifest in made), default=None)
    answer = _answer(running.run_document(run)) if len(made) == len(stages) else {}
    return {"config": name, "state": state, "made": started, **answer}


def _answer(doc: Mapping[str, Any]) -> dict[str, Any]:
    chosen = next(row for row in doc["variants"] if row["chosen"])
    speed = {key: doc["speedup"][key] for key in ("ratio", "ci95", "verdict")}
    setting = {key: doc["speedup"][key] for key in ("precision", "provider", "batch", "threads")}
    return {
        "data": doc["data"]["label"],
        "base_accuracy": doc["base"]["accuracy"],
        "accuracy": doc["final"]["accuracy"],
        "accuracy_change": chosen.get("accuracy_change"),
        "bytes": doc["final"]["bytes"],
        **speed,
        **setting,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table of runs."""
    columns = ("run", "state", "accuracy", "change", "speed", "95 % CI", "file", "made")
    console.table(columns, list(map(_cells, rows)), right=columns[2:7])
    for row in rows:
        if row["error"]:
            console.warn(str(row["error"]))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    made = (row["made"] or "")[:16].replace("T", " ")
    if row["accuracy"] is None:
        return row["run"], row["state"], "", "", "", "", "", made
    change, points = row["accuracy_change"], 100 * (row["accuracy"] - row["base_accuracy"])
    shown = change is None or change["shown"]
    low, high = row["ci95"]
    return (
        row["run"],
        row["state"],
        f"{row['accuracy']:.2%}",
        f"{points:+.2f}" if shown else "none shown",
        f"{row['ratio']:.2f}×",
        f"{low:.2f} to {high:.2f}",
        f"{console.size(row['bytes'])} {row['precision']}",
        made,
    )

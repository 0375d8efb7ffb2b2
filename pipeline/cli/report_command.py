"""`rlp report RUN`: what a finished run found; nothing is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command
from pipeline.cli.running import SUMMARY_KEYS


def register(app: typer.Typer) -> None:
    command(app, "report", keys=SUMMARY_KEYS)(report)


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, such as artifacts/quickstart.")
    ],
) -> dict[str, Any]:
    """Show the before/after table of RUN and where its page lies.

    Only reads: it needs no images and no lock, and re-runs nothing. Where stages are stale it says
    so, and shows what was found before.
    """
    from pipeline.cli import running

    _say_what_is_stale(run)
    doc = running.load_summary(run)
    running.show_result(doc)
    return doc


def _say_what_is_stale(run: Path) -> None:
    """Warn of stages whose settings or inputs have changed since.

    Raises:
        ArtifactError: the run, or a file of it, is damaged.
    """
    from pipeline.cli import planned
    from pipeline.errors import ArtifactError, Command, Hint
    from pipeline.run.planner import Planner
    from pipeline.run.runner import read_run

    config, name = read_run(run)
    steps = Planner(planned.stages_of(config), config, run, outside=False).plan()
    for step in steps:
        if planned.state(step) == "damaged":
            hint = Hint.command("check", str(run), says="lists all that is damaged")
            raise ArtifactError(f"{step.stage.name}: {step.reason}", hint=hint)
    stale = next((step for step in steps if planned.state(step) == "stale"), None)
    if stale is not None:
        again = Command("pipeline", "run", name, "--run-dir", str(run))
        console.warn(
            f"these numbers are from before a change ({stale.stage.name}: {stale.reason}); "
            f"{again} makes them again"
        )

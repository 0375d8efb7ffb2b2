"""`rlp report RUN`: the report of a finished run, made again when it is stale."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.common import command
from pipeline.cli.running import SUMMARY_KEYS


def register(app: typer.Typer) -> None:
    command(app, "report", keys=SUMMARY_KEYS)(report)


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, such as artifacts/quickstart.")
    ],
) -> dict[str, Any]:
    """Show the before/after table of RUN and where its page lies."""
    from pipeline.cli import running
    from pipeline.run.runner import read_run

    config, name = read_run(run)
    running.execute(
        config,
        name,
        run,
        first="report",
        resume_command=running.as_typed(("report", str(run)), {}, ()),
        named=False,
    )
    doc = running.load_summary(run)
    running.show_result(doc)
    return doc

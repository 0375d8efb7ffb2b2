"""`rlp report RUN`: what a finished run found; nothing is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.common import command
from pipeline.cli.completion import complete_run
from pipeline.cli.running import SUMMARY_KEYS


def register(app: typer.Typer) -> None:
    command(app, "report", keys=SUMMARY_KEYS)(report)


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder, such as artifacts/quickstart.",
            autocompletion=complete_run,
        ),
    ],
) -> dict[str, Any]:
    """Show the before/after table of RUN and where its page lies.

    Only reads: it needs no images and no lock, and re-runs nothing. Where stages are stale it says
    so, and shows what was found before.
    """
    from pipeline.cli import running
    from pipeline.cli.status import warn_of_stale

    warn_of_stale(run)
    doc = running.load_summary(run)
    running.show_result(doc)
    return doc

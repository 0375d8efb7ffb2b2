"""`rlp search compare`."""

from __future__ import annotations

import typer

app = typer.Typer(help="Compare search strategies at equal budgets.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root() -> None:
    """Compare search strategies at equal budgets."""

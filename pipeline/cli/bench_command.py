"""`rlp bench A.onnx B.onnx`: the benchmark protocol on any two files."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Nothing yet."""

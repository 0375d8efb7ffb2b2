"""How numbers and names are written in every section."""

from __future__ import annotations


def ms(value: float | None) -> str:
    """Milliseconds; blank where too few calls were timed to say."""
    return "" if value is None else f"{value:.3f}"


def provider(name: str) -> str:
    """`CPU` for CPUExecutionProvider."""
    return name.removesuffix("ExecutionProvider")

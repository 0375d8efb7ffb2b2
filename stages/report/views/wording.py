"""How numbers and names are written in every section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.words import count_of

NO_DIFFERENCE = "no difference shown"


def ms(value: float | None) -> str:
    """Milliseconds; blank where too few calls were timed to say."""
    return "" if value is None else f"{value:.3f}"


def provider(name: str) -> str:
    """`CPU` for CPUExecutionProvider."""
    return name.removesuffix("ExecutionProvider")


def setting_name(row: Mapping[str, Any]) -> str:
    """`batch 1, 2 threads`."""
    return f"batch {row['batch']}, {count_of(row['threads'], 'thread')}"


def interval(ends: Sequence[float]) -> str:
    """`1.86 to 1.96`."""
    return f"{ends[0]:.2f} to {ends[1]:.2f}"


def relative(before: float | None, after: float | None) -> str:
    """`-60.0%`; blank where either is not known."""
    return f"{after / before - 1:+.1%}" if before and after else ""

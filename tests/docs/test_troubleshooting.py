"""docs/troubleshooting.md quotes what the program really says."""

from __future__ import annotations

import re

import pytest
from pages import ROOT, read

from pipeline import errors

PAGE = read(ROOT / "docs" / "troubleshooting.md")


def quotes(heading: str) -> list[str]:
    """The first column of the table below a heading."""
    section = PAGE.prose.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [found.strip() for found in re.findall(r"^\| ([^|]+) \|", section, re.M)][1:]


def said_in(folder: str) -> str:
    """All sources of a stage, with string literals that are broken over lines joined."""
    text = "\n".join(p.read_text("utf-8") for p in sorted((ROOT / folder).rglob("*.py")))
    return " ".join(re.sub(r'"\s*\n\s*f?"', "", text).split())


@pytest.mark.parametrize("reason", quotes("This layer stays, and why"))
def test_reason_is_one_that_trace_gives(reason: str) -> None:
    assert reason in said_in("stages/trace")


@pytest.mark.parametrize("cause", quotes("No gain, and why"))
def test_cause_is_one_that_the_benchmark_gives(cause: str) -> None:
    assert cause in said_in("stages/benchmark")


def test_the_tables_are_found() -> None:
    assert len(quotes("This layer stays, and why")) > 10
    assert len(quotes("No gain, and why")) > 5


def test_every_exit_code_is_explained() -> None:
    listed = {int(n) for row in quotes("Exit codes") for n in re.findall(r"\d+", row)}
    types = [t for t in vars(errors).values() if isinstance(t, type)]
    real = {t.exit_code for t in types if issubclass(t, errors.RlpError)}
    assert listed == real | {0, 143}

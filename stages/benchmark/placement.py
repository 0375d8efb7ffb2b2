"""On which execution provider every node ran: a silent fall-back to the CPU falsifies a timing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Command, EnvironmentProblem, Hint
from pipeline.runtime.feed import Given
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker

HEAVY = (
    "Conv",
    "FusedConv",
    "ConvTranspose",
    "ConvInteger",
    "QLinearConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "QGemm",
)


def misplaced(rows: Sequence[dict[str, Any]], provider: str) -> list[str]:
    """Names of the heavy nodes in profile rows that did not run on `provider`."""
    return [row["name"] for row in rows if row["op"] in HEAVY and row["provider"] != provider]


def check_placement(
    path: Path,
    provider: str,
    allow_fallback: bool = False,
    input_shape: Given = None,
    batch: int = 1,
) -> list[str]:
    """Heavy nodes of the file that fall back to the CPU, found by a short profiled run.

    Raises:
        EnvironmentProblem: there are some, or the session dropped the provider altogether,
            unless `allow_fallback`.
    """
    chosen = find_provider(provider)
    with Worker() as worker:
        opened = worker.open(path, provider=chosen.name, profile=True)
        worker.feed(batch=batch, shape=input_shape, device=chosen.device)
        # A session lists a provider that took none of its nodes; only a profile tells.
        rows = worker.profile(runs=3)
    left = misplaced(rows, chosen.name) if chosen.name != CPU else []
    dropped = chosen.name not in opened["providers"]
    if (left or dropped) and not allow_fallback:
        raise _fell_back(path, chosen.name, left)
    return left


def _fell_back(path: Path, provider: str, left: Sequence[str]) -> EnvironmentProblem:
    what = "the session dropped it"
    if left:
        what = f"{len(left)} heavy nodes ({left[0]} …) ran elsewhere"
    return EnvironmentProblem(
        f"{path.name} does not run on {provider}: {what}",
        hint=Hint(
            "check its libraries and driver with ",
            Command("doctor"),
            ", or pass --allow-fallback",
        ),
    )

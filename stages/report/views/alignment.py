"""The channel counts that pay on the machine of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.words import count_of
from stages.report import plots
from stages.report.views.wording import provider

_WORTH_SAYING = 1.05  # of the best multiple's time a channel


def alignment_block(
    search: Mapping[str, Any], benchmark: Mapping[str, Any], plan: Mapping[str, Any]
) -> dict[str, str] | None:
    """Sentence and plot of the channel multiple that pays; None where none was measured.

    The benchmark's measurement, or else the search's own.
    """
    measured = benchmark.get("alignment") or search.get("alignment")
    if not measured:
        return None
    times: dict[str, list[tuple[int, float]]] = {}
    for row in measured["rows"]:
        times.setdefault(row["kind"], []).append((row["channels"], row["us"]))
    plot = plots.alignment(times, measured["multiple"])
    return {"sentence": alignment_sentence(measured, plan), "plot": plot}


def alignment_sentence(alignment: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Which multiple pays, what others cost, and what the plan was made with."""
    multiple, used = alignment["multiple"], plan.get("metadata", {}).get("align")
    costs = [
        f"{cost:.2f}× at other multiples of {m}"
        for m, cost in alignment["cost"].items()
        if cost >= _WORTH_SAYING
    ]
    lost = f"; time a channel is {', '.join(costs)}" if costs else ""
    made = f" The plan was made with multiples of {used}." if used else ""
    where = f"{provider(alignment['provider'])}, {count_of(alignment['threads'], 'thread')}"
    pays = f"channel counts that are multiples of {multiple} pay"
    return f"On this machine ({where}) {pays}{lost}.{made}"

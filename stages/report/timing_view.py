"""What the page says beside the latency table: further files, the machine's limit, and channel
counts that pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.report import plots
from stages.report.view import setting_rows


def against_rows(benchmark: Mapping[str, Any]) -> list[dict[str, str]]:
    """Further files timed against the base: rows as of the latency table, with file and
    accuracy.
    """
    return [
        {
            **row,
            "file": other["file"],
            "accuracy": "not scored" if other["accuracy"] is None else f"{other['accuracy']:.2%}",
        }
        for other in benchmark.get("against", ())
        for row in setting_rows(other["settings"])
    ]


def roofline_sentence(benchmark: Mapping[str, Any]) -> str:
    """How close both files come to what this machine's convolutions reach at best; empty where
    none was profiled.
    """
    why = benchmark.get("why")
    if not why:
        return ""
    a, b, peak = why["a"]["gmacs_per_s"], why["b"]["gmacs_per_s"], why["peak_gmacs_per_s"]
    return f"Base and final run at {a:.1f} and {b:.1f} of the {peak:.1f} GMAC/s that wide convolutions reach here."


def alignment_block(
    search: Mapping[str, Any], benchmark: Mapping[str, Any], plan: Mapping[str, Any]
) -> dict[str, str] | None:
    """Sentence and plot of the channel multiple that pays on the machine of the benchmark; None
    where unmeasured.
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
        if cost >= 1.05
    ]
    lost = f"; time a channel is {', '.join(costs)}" if costs else ""
    made = f" The plan was made with multiples of {used}." if used else ""
    threads = f"{alignment['threads']} thread{'s' if alignment['threads'] != 1 else ''}"
    where = f"{alignment['provider'].removesuffix('ExecutionProvider')}, {threads}"
    return f"On this machine ({where}) channel counts that are multiples of {multiple} pay{lost}.{made}"

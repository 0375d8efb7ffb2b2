"""Every layer before and after: channels, MACs, and the time it takes in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.report import plots
from stages.report.documents import Document

_MOST_BARS = 14


def layer_rows(cut: Document, benchmark: Document) -> list[dict[str, str]]:
    """Every layer that multiplies; microseconds where the benchmark profiled both files."""
    left = {row["name"]: row for row in cut["layers"]["after"]}
    timed = {row["layer"]: row for row in _profiled(benchmark)}
    return [
        _layer_row(before, left.get(before["name"], _NO_LAYER), timed.get(before["name"], {}))
        for before in cut["layers"]["before"]
        if before["macs"]
    ]


# what is left of a layer that went with its branch
_NO_LAYER = {"in_channels": 0, "out_channels": 0, "macs": 0}


def _profiled(benchmark: Document) -> list[Document]:
    return list(benchmark.get("why", {}).get("layers", ()))


def _layer_row(before: Document, after: Document, timed: Document) -> dict[str, str]:
    was, left = before["out_channels"], after["out_channels"]
    return {
        "name": before["name"],
        "type": before["type"],
        "into": f"{before['in_channels']:,} → {after['in_channels']:,}",
        "out": f"{was:,} → {left:,}",
        "kept": f"{left / was:.0%}" if was else "",
        "macs": f"{before['macs']:,} → {after['macs']:,}",
        "share": f"{after['macs'] / before['macs']:.0%}",
        "us": f"{_us(timed, 'a')} → {_us(timed, 'b')}" if timed else "",
    }


def _us(timed: Document, side: str) -> str:
    return f"{timed[side]['us']:.0f}" if timed.get(side) else "0"


def layer_plot(benchmark: Document) -> str:
    """The layers that take longest, and all others together; empty where none was profiled."""
    rows = [
        (row["layer"], *(float((row[side] or {}).get("us", 0.0)) for side in ("a", "b")))
        for row in _profiled(benchmark)
    ]
    if not rows:
        return ""
    longest = sorted(rows, key=lambda row: -max(row[1], row[2]))[:_MOST_BARS]
    shown = [row for row in rows if row in longest]  # in the network's order
    why = benchmark["why"]
    rest = [
        max(0.0, why[side]["us"] - sum(row[place] for row in shown))
        for place, side in ((1, "a"), (2, "b"))
    ]
    return plots.layer_times([*shown, ("all others", *rest)])


def operator_rows(benchmark: Document) -> list[dict[str, str]]:
    """Nodes and microseconds by operator, what takes longest first."""
    by_op: Mapping[str, Any] = benchmark.get("why", {}).get("by_op", {})
    return [
        {
            "op": op,
            "nodes": f"{row['a_nodes']:,} → {row['b_nodes']:,}",
            "us": f"{row['a_us']:,.0f} → {row['b_us']:,.0f}",
        }
        for op, row in sorted(
            by_op.items(), key=lambda item: -max(item[1]["a_us"], item[1]["b_us"])
        )
    ]

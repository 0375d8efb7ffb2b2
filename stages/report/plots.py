"""Plots of the report as inline SVG text; plain lists in, a string out."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib.figure import Figure

BLUE, GREY, ORANGE = "#2563eb", "#c3c9d4", "#ea580c"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rlp",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True, bbox_inches="tight"
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text, count=1).replace(
        "<svg ", '<svg role="img" ', 1
    )


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots()


def widths(rows: Sequence[tuple[str, int, int]]) -> str:
    """Horizontal bars, one a channel group: (name, units before, units after)."""
    figure, axes = _figure(7.5, 0.8 + 0.19 * len(rows))
    places = range(len(rows))
    axes.barh(places, [before for _, before, _ in rows], color=GREY, label="before")
    axes.barh(places, [after for _, _, after in rows], color=BLUE, height=0.5, label="after")
    axes.set_yticks(places, [name for name, _, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("channels")
    axes.legend(frameon=False, loc="lower right")
    return _svg(figure)


def search_curve(scores: Sequence[float], controls: Mapping[str, float]) -> str:
    """Score of every trial, the best so far, and the controls that need no search as lines."""
    figure, axes = _figure(7.5, 2.8)
    best = [max(scores[: i + 1]) for i in range(len(scores))]
    axes.plot(range(1, len(scores) + 1), scores, ".", color=GREY, label="trial")
    axes.plot(range(1, len(scores) + 1), best, color=BLUE, label="best so far")
    for (name, value), style in zip(controls.items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color=ORANGE, linestyle=style, label=name)
    axes.set_xlabel("trial")
    axes.set_ylabel("score on the search split")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def distillation_curve(
    epochs: Sequence[int], accuracy: Sequence[float], start: float | None, teacher: float | None
) -> str:
    """Accuracy on the search split an epoch, from the re-estimated start to the teacher's level."""
    figure, axes = _figure(7.5, 2.6)
    axes.plot(epochs, [100 * a for a in accuracy], "o-", color=BLUE, label="student", markersize=3)
    for value, label, style in ((teacher, "teacher", "--"), (start, "after the cut", ":")):
        if value is not None:
            axes.axhline(100 * value, color=ORANGE, linestyle=style, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on search, %")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def speedups(rows: Sequence[tuple[str, float, float, float]], control: float) -> str:
    """Speedup with its 95 % interval a setting: (name, ratio, low, high); the A/A control's spread as a band."""
    figure, axes = _figure(7.5, 0.9 + 0.32 * len(rows))
    for place, (_, ratio, low, high) in enumerate(rows):
        axes.errorbar(
            ratio, place, xerr=[[max(0.0, ratio - low)], [max(0.0, high - ratio)]], fmt="o", color=BLUE, capsize=3
        )
    axes.axvline(1, color=GREY)
    axes.axvspan(1 - control, 1 + control, color=GREY, alpha=0.4, label="spread of the base against itself")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the base")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)

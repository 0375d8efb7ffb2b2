"""The look of all plots, and how a figure becomes text of the page."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec

import matplotlib

matplotlib.use("svg")  # no window, no display
from matplotlib.figure import Figure

P = ParamSpec("P")
BLUE, GREY, MID, ORANGE = "#3b82f6", "#b4bcc9", "#8b95a5", "#ea580c"
INK = "#010203"  # becomes the page's own text colour, light or dark
MARKERS = ("D", "s", "^", "v", "P", "X")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rlp",  # ids from this and not from a clock: the same figure, the same text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Everything a plot is made of takes its look when it is made, not when it is saved."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def one_panel(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of one pair of axes, in inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def panels(count: int, height: float, *, sharey: bool = False) -> tuple[Figure, Any]:
    """A figure of the page's width with `count` axes side by side."""
    figure = Figure(figsize=(7.5, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=sharey)[0]


def points(axes: Any, pairs: Iterable[tuple[float, float]], style: str, **look: Any) -> None:
    """Plot (x, y) pairs; there is at least one."""
    axes.plot(*zip(*pairs, strict=True), style, **look)


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that grows and shrinks with the page."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        metadata={"Date": None, "Creator": None},
        transparent=True,
        bbox_inches="tight",
    )
    text = buffer.getvalue()
    # what comes before is an XML declaration, which has no place within HTML
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    style = rf'<svg role="img" style="max-width: {figure.get_figwidth() * 1.2:g}in" \1'
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', style, text, count=1)

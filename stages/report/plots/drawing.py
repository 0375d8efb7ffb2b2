"""The look of all plots, and how a figure becomes text of the page."""

from __future__ import annotations

import functools
import hashlib
import html
import io
import re
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec

import matplotlib

matplotlib.use("svg")  # no window, no display
from matplotlib.figure import Figure

P = ParamSpec("P")
BLUE, GREY, MID, ORANGE = "#3b82f6", "#b4bcc9", "#8b95a5", "#ea580c"
# these two become the page's own colours, light or dark
INK, PAPER = "#010203", "#030201"
MARKERS = ("D", "s", "^", "v", "P", "X")
_WIDTH = 4.4  # inches: two stand side by side on a screen, one fills a phone and can be read there
_MOST_POINTS = 2000
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rlp",  # ids from this and not from a clock: the same figure, the same text
    "text.parse_math": False,  # a $ in somebody's name is a $
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.titlesize": 9,
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


def one_panel(height: float) -> tuple[Figure, Any]:
    """A figure of one pair of axes, `height` inches high."""
    figure, axes = panels(1, height)
    return figure, axes[0]


def panels(count: int, height: float) -> tuple[Figure, Any]:
    """A figure of `count` axes, each `height` inches high, one below the other."""
    figure = Figure(figsize=(_WIDTH, height * count), layout="constrained")
    return figure, figure.subplots(count, squeeze=False)[:, 0]


def fitting(name: str, most: int = 26) -> str:
    """A name for an axis or a legend; of a long one its end, which tells it from others."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def legend_above(figure: Figure, axes: Any, columns: int = 2) -> None:
    """A legend that covers no data, with every label of `axes` once."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def points(axes: Any, pairs: Iterable[tuple[float, float]], style: str, **look: Any) -> None:
    """Plot (x, y) pairs; there is at least one. Many become a picture: the page stays small."""
    places = list(pairs)
    axes.plot(*zip(*places, strict=True), style, rasterized=len(places) > _MOST_POINTS, **look)


def clamped(axes: Any, pairs: Iterable[tuple[float, float]], low: float, color: str) -> None:
    """Mark points that lie below the axes, at their edge."""
    below = [(x, low) for x, y in pairs if y < low]
    if below:
        points(axes, below, "v", color=color, markersize=5, clip_on=False)


def least_span(axes: Any, span: float) -> None:
    """Widen the y axis to `span`, so that differences within the noise look like none."""
    low, high = axes.get_ylim()
    if high - low < span:
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def svg(figure: Figure, title: str, description: str) -> str:
    """The figure as an `<svg>` element that grows and shrinks with the page.

    Args:
        title, description: what it shows, and what can be read off it, for who cannot see it.
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True, dpi=200
    )
    text = buffer.getvalue()
    # what comes before is an XML declaration, which has no place within HTML
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # figure_1, axes_1, … of every figure
    head = _opening(figure.get_figwidth(), title, description)
    return re.sub(r"<svg [^>]*>", lambda found: _with_box(found[0], head), text, count=1)


def _opening(width: float, title: str, description: str) -> str:
    name = "plot-" + hashlib.sha256(f"{title}{description}".encode()).hexdigest()[:8]
    return (
        f'<svg role="img" style="max-width: {width * 1.2:g}in" '
        f'aria-labelledby="{name}-title {name}-desc" BOX>'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>'
    )


def _with_box(old: str, head: str) -> str:
    box = re.search(r'viewBox="[^"]*"', old)
    assert box is not None
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return head.replace("BOX", f"{box[0]} {spaces}", 1)

"""Plots of the report as inline SVG text; plain lists in, a string out."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import matplotlib

matplotlib.use("svg")
from matplotlib.figure import Figure

P = ParamSpec("P")
BLUE, GREY, MID, ORANGE = "#3b82f6", "#b4bcc9", "#8b95a5", "#ea580c"
INK = "#010203"  # becomes the page's own text colour, light or dark
MARKERS = ("D", "s", "^", "v", "P", "X")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rlp",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}


@dataclass(frozen=True)
class KeptGroup:
    """A channel group: units in the original, kept in the end, after each earlier round, by
    each strategy's best.
    """

    name: str
    size: int
    kept: int
    earlier: tuple[int, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """One round's search: parallel lists over its candidates, and the scores of the controls."""

    title: str
    scores: Sequence[float]
    best: Sequence[float | None]
    stopped: Sequence[bool]
    controls: Mapping[str, float]


@dataclass(frozen=True)
class CostPanel:
    """Candidates by one cost, as (cost, score)."""

    label: str
    points: Sequence[tuple[float, float]]
    chosen: tuple[float, float]
    controls: Mapping[str, tuple[float, float]]
    limit: float | None = None


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Everything a plot is made of takes its look when it is made, not when it is saved."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        metadata={"Date": None, "Creator": None},
        transparent=True,
        bbox_inches="tight",
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    style = rf'<svg role="img" style="max-width: {figure.get_figwidth() * 1.2:g}in" \1'
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', style, text, count=1)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


@_styled
def keep_ratios(rows: Sequence[KeptGroup], names: Sequence[str]) -> str:
    """Share of its channels that each group keeps, with the controls' choice and what earlier
    rounds left.

    Args:
        rows: one a group, in the network's order.
        names: of the strategies in `others`, in the order of their markers.
    """
    figure, axes = _figure(7.5, 1.1 + 0.2 * len(rows))
    places = range(len(rows))
    axes.barh(places, [100] * len(rows), color=GREY, alpha=0.35, height=0.8, label="before")
    axes.barh(
        places, [100 * row.kept / row.size for row in rows], color=BLUE, height=0.5, label="after"
    )
    earlier = [
        (100 * kept / row.size, place) for place, row in enumerate(rows) for kept in row.earlier
    ]
    if earlier:
        axes.plot(
            *zip(*earlier, strict=True),
            "|",
            color=INK,
            markersize=7,
            label="after an earlier round",
        )
    for name, marker in zip(names, MARKERS, strict=False):
        points = [
            (100 * row.others[name] / row.size, place)
            for place, row in enumerate(rows)
            if name in row.others
        ]
        style = {
            "color": ORANGE,
            "linestyle": "none",
            "markeredgecolor": "white",
            "markersize": 5,
            "markeredgewidth": 0.6,
        }
        axes.plot(*zip(*points, strict=True), marker, label=name, **style)
    axes.set_yticks(places, [row.name for row in rows], fontsize=7)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [f"{row.size} → {row.kept}" for row in rows], fontsize=7)
    right.spines["right"].set_visible(False)
    right.tick_params(length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 101)
    axes.set_xlabel("channels kept, % of the original network's")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5)
    return _svg(figure)


@_styled
def search_curve(curves: Sequence[Curve], unit: str) -> str:
    """Score of every trial, the best so far, and the controls that need no search as lines; one
    panel a round.
    """
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, curve in zip(panels, curves, strict=True):
        low, high = _window(curve.scores, curve.controls.values())
        whole = [
            (n, max(s, low))
            for n, (s, cut) in enumerate(zip(curve.scores, curve.stopped, strict=True), 1)
            if not cut
        ]
        short = [
            (n, max(s, low))
            for n, (s, cut) in enumerate(zip(curve.scores, curve.stopped, strict=True), 1)
            if cut
        ]
        if short:
            axes.plot(
                *zip(*short, strict=True),
                "x",
                color=GREY,
                markersize=3,
                label="stopped after a quarter of the images",
            )
        axes.plot(*zip(*whole, strict=True), ".", color=MID, markersize=4, label="candidate")
        best = [(n, score) for n, score in enumerate(curve.best, 1) if score is not None]
        axes.plot(*zip(*best, strict=True), color=BLUE, drawstyle="steps-post", label="best so far")
        for (name, value), style in zip(curve.controls.items(), ("--", ":", "-."), strict=False):
            axes.axhline(
                max(value, low),
                color=ORANGE,
                linestyle=style,
                label=f"{name} {value:.3g}",
                linewidth=1,
            )
        axes.set_ylim(low - 0.03 * (high - low), high + 0.06 * (high - low))
        axes.set_xlabel("candidate" if len(curves) == 1 else f"candidate of {curve.title}")
    panels[0].set_ylabel(f"score, {unit}")
    panels[-1].legend(frameon=False, fontsize=7, loc="lower right")
    return _svg(figure)


@_styled
def pareto(panels: Sequence[CostPanel], unit: str) -> str:
    """Score against cost: dominated candidates light, the front joined, the chosen one marked."""
    figure = Figure(figsize=(7.5, 3.1), layout="constrained")
    drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    low, high = _window(
        [score for _, score in panels[0].points],
        [score for _, score in panels[0].controls.values()],
    )
    for axes, panel in zip(drawn, panels, strict=True):
        seen = [(cost, score) for cost, score in panel.points if score >= low]
        axes.plot(
            *zip(*seen, strict=True), ".", color=GREY, alpha=0.7, markersize=4, label="dominated"
        )
        front = front_of(panel.points)
        axes.plot(
            *zip(*front, strict=True), "o-", color=BLUE, markersize=3.5, linewidth=1, label="front"
        )
        for (name, point), marker in zip(panel.controls.items(), MARKERS, strict=False):
            axes.plot(
                point[0],
                max(point[1], low),
                marker,
                color="none",
                markeredgecolor=ORANGE,
                markersize=6,
                label=name,
            )
        axes.plot(
            *panel.chosen,
            "*",
            color=ORANGE,
            markeredgecolor=INK,
            markeredgewidth=0.5,
            markersize=12,
            label="chosen",
        )
        if panel.limit is not None:
            axes.axvline(panel.limit, color=INK, linewidth=0.8, linestyle="--", label="budget")
        axes.set_ylim(low - 0.04 * (high - low), high + 0.08 * (high - low))
        axes.set_xlabel(panel.label)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.locator_params(axis="x", nbins=5)
    drawn[0].set_ylabel(f"score, {unit}")
    drawn[-1].legend(frameon=False, fontsize=7, loc="lower right")
    return _svg(figure)


def front_of(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (cost, score) that no other beats in both, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _window(scores: Sequence[float], controls: Iterable[float]) -> tuple[float, float]:
    """Lowest and highest score worth drawing; a few disasters would flatten all others, they
    are drawn at the edge.
    """
    ranked = sorted(scores)
    high, median = max(ranked[-1], *controls, ranked[-1]), ranked[len(ranked) // 2]
    spread = high - median or 1.0
    low = min(
        max(ranked[0], median - 3 * spread), max(min(controls, default=high), median - 12 * spread)
    )
    return (low, high) if high > low else (low - 1, high + 1)


@_styled
def predicted_against_measured(pairs: Sequence[tuple[float, float]]) -> str:
    """Latency as the table predicts it and as timed, in ms; on the line they agree, in the band
    within 10 %.
    """
    figure, axes = _figure(4.2, 3.2)
    edges = [min(min(pair) for pair in pairs) * 0.95, max(max(pair) for pair in pairs) * 1.05]
    axes.fill_between(
        edges,
        [0.9 * e for e in edges],
        [1.1 * e for e in edges],
        color=GREY,
        alpha=0.35,
        linewidth=0,
        label="within 10 %",
    )
    axes.plot(edges, edges, color=INK, linewidth=0.8)
    axes.plot(
        [m for _, m in pairs],
        [p for p, _ in pairs],
        "o",
        color=BLUE,
        markersize=4,
        label="candidate",
    )
    axes.set_xlim(*edges)
    axes.set_xlabel("measured latency, ms")
    axes.set_ylabel("predicted latency, ms")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _svg(figure)


@_styled
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


@_styled
def speedups(rows: Sequence[tuple[str, float, float, float]], control: float) -> str:
    """Speedup with its 95 % interval a setting: (name, ratio, low, high); the A/A control's
    spread as a band.
    """
    figure, axes = _figure(7.5, 0.9 + 0.32 * len(rows))
    for place, (_, ratio, low, high) in enumerate(rows):
        axes.errorbar(
            ratio,
            place,
            xerr=[[max(0.0, ratio - low)], [max(0.0, high - ratio)]],
            fmt="o",
            color=BLUE,
            capsize=3,
        )
    axes.axvline(1, color=GREY)
    axes.axvspan(
        1 - control, 1 + control, color=GREY, alpha=0.4, label="spread of the base against itself"
    )
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.set_xlabel("times as fast as the base")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)


@_styled
def alignment(times: Mapping[str, Sequence[tuple[int, float]]], multiple: int) -> str:
    """Microseconds a channel over channel counts, one panel a kind of convolution; multiples that
    pay stand out.

    Args:
        times: by kind, (channels, microseconds of one layer), in any order.
        multiple: what channel counts should be a multiple of.
    """
    figure = Figure(figsize=(7.5, 2.3), layout="constrained")
    panels = figure.subplots(1, len(times), squeeze=False)[0]
    for axes, (kind, rows) in zip(panels, times.items(), strict=True):
        points = [(width, us / width) for width, us in sorted(rows)]
        axes.plot(*zip(*points, strict=True), "-", color=GREY, zorder=1)
        for good, color, label in (
            (True, BLUE, f"multiple of {multiple}"),
            (False, ORANGE, "any other"),
        ):
            chosen = [point for point in points if (point[0] % multiple == 0) is good]
            if chosen:
                axes.plot(*zip(*chosen, strict=True), "o", color=color, markersize=4, label=label)
        axes.set_title(kind, fontsize=9)
        axes.set_xlabel("channels")
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("µs a channel")
    panels[0].legend(frameon=False, fontsize=7)
    return _svg(figure)

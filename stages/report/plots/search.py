"""What a search tried: scores over its candidates, scores over costs, and predicted latency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.plots.drawing import (
    BLUE,
    GREY,
    INK,
    MARKERS,
    MID,
    ORANGE,
    PAPER,
    clamped,
    least_span,
    legend_above,
    one_panel,
    panels,
    points,
    styled,
    svg,
)

Point = tuple[float, float]
_STAR: Any = {"color": ORANGE, "markeredgecolor": INK, "markeredgewidth": 0.5, "markersize": 12}


@dataclass(frozen=True)
class Curve:
    """One round's search: parallel lists over its candidates, and the scores of the controls.

    Attributes:
        best: the best score so far, None before the first whole one.
        stopped: whether a candidate was stopped before it saw all images.
    """

    title: str
    scores: Sequence[float]
    best: Sequence[float | None]
    stopped: Sequence[bool]
    controls: Mapping[str, float]


@dataclass(frozen=True)
class CostPanel:
    """Candidates by one cost, as (cost, score).

    Attributes:
        label: of the cost's axis, with its unit.
        chosen: what became the plan.
        controls: by strategy.
        limit: the budget, where this cost is it.
    """

    label: str
    points: Sequence[Point]
    chosen: Point
    controls: Mapping[str, Point]
    limit: float | None = None


@styled
def search_curve(curves: Sequence[Curve], unit: str) -> str:
    """Score of every trial, the best so far, and the controls as lines; one panel a round."""
    figure, drawn = panels(len(curves), 2.9)
    for axes, curve in zip(drawn, curves, strict=True):
        low, high = _window(curve.scores, curve.controls.values())
        _candidates(axes, curve, low)
        # what has no style of its own left goes without a line
        for (name, value), style in zip(curve.controls.items(), ("--", ":", "-."), strict=False):
            label = f"{name} {value:.3g}{' (below the axis)' if value < low else ''}"
            edge = max(value, low)
            axes.axhline(edge, color=ORANGE, linestyle=style, label=label, linewidth=1)
        axes.set_ylim(low - 0.03 * (high - low), high + 0.06 * (high - low))
        axes.set_xlabel("candidate" if len(curves) == 1 else f"candidate of {curve.title}")
        axes.set_ylabel(f"score, {unit.rpartition(', ')[2]}")
    legend_above(figure, drawn[-1])
    found = "; ".join(
        f"{curve.title}: {len(curve.scores)} candidates, the best {max(curve.scores):.3g}"
        for curve in curves
    )
    return svg(figure, "Score of every candidate in the order they were tried", found)


def _candidates(axes: Any, curve: Curve, low: float) -> None:
    """Whole and stopped candidates, those below the window on its edge, and the best so far."""
    scored = list(enumerate(zip(curve.scores, curve.stopped, strict=True), 1))
    inside = [(n, score, cut) for n, (score, cut) in scored if score >= low]
    for stopped, style, look in (
        (True, "x", {"color": GREY, "markersize": 3, "label": "stopped early"}),
        (False, ".", {"color": MID, "markersize": 4, "label": "candidate"}),
    ):
        if chosen := [(n, score) for n, score, cut in inside if cut is stopped]:
            points(axes, chosen, style, **look)
    clamped(axes, enumerate(curve.scores, 1), low, MID)
    best = [(n, score) for n, score in enumerate(curve.best, 1) if score is not None]
    points(axes, best, "-", color=BLUE, drawstyle="steps-post", label="best so far")


@styled
def pareto(costs: Sequence[CostPanel], unit: str) -> str:
    """Score against cost: dominated candidates light, the front joined, the chosen one marked."""
    figure, drawn = panels(len(costs), 2.8)
    low, high = _window(
        [score for _, score in costs[0].points],
        [score for _, score in costs[0].controls.values()],
    )
    for axes, panel in zip(drawn, costs, strict=True):
        _cost_panel(axes, panel, low)
        axes.set_ylim(low - 0.04 * (high - low), high + 0.08 * (high - low))
        axes.set_xlabel(panel.label)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.locator_params(axis="x", nbins=5)
        axes.set_ylabel(f"score, {unit.rpartition(', ')[2]}")
    legend_above(figure, drawn[-1], columns=3)
    return svg(
        figure,
        "What candidates score for what they cost",
        f"{len(costs[0].points)} candidates by {' and by '.join(panel.label for panel in costs)}; "
        f"the chosen one scores {costs[0].chosen[1]:.3g}.",
    )


def _cost_panel(axes: Any, panel: CostPanel, low: float) -> None:
    seen = [(cost, score) for cost, score in panel.points if score >= low]
    points(axes, seen, ".", color=GREY, alpha=0.7, markersize=4, label="dominated")
    clamped(axes, panel.points, low, MID)
    front = front_of(panel.points)
    points(axes, front, "o-", color=BLUE, markersize=3.5, linewidth=1, label="front")
    control = {"color": "none", "markeredgecolor": ORANGE, "markersize": 6}
    for (name, (cost, score)), marker in zip(panel.controls.items(), MARKERS, strict=False):
        said = f"{name} (below)" if score < low else name
        axes.plot(cost, max(score, low), marker, label=said, **control)
    axes.plot(*panel.chosen, "*", label="chosen", **_STAR)
    if panel.limit is not None:
        axes.axvline(panel.limit, color=INK, linewidth=0.8, linestyle="--", label="budget")


def front_of(candidates: Sequence[Point]) -> list[Point]:
    """Those of (cost, score) that no other beats in both, cheapest first."""
    front: list[Point] = []
    # by cost, the best of equal costs first: then whatever scores higher than all before is on it
    for cost, score in sorted(candidates, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _window(scores: Sequence[float], controls: Iterable[float]) -> Point:
    """Lowest and highest score worth drawing: a few disasters would flatten all others."""
    controls = list(controls)
    ranked = sorted(scores)
    # twice: with no controls, max() of a single number fails
    high, median = max(ranked[-1], *controls, ranked[-1]), ranked[len(ranked) // 2]
    spread = high - median or 1.0  # all scores equal
    lowest_control = max(min(controls, default=high), median - 12 * spread)
    # A few outliers are cut off early; a control further down is worth seeing, up to a point.
    low = min(max(ranked[0], median - 3 * spread), lowest_control)
    return (low, high) if high > low else (low - 1, high + 1)


@styled
def front(
    measured: Sequence[Point], predicted: Sequence[Point], chosen: Point | None, label: str
) -> str:
    """Accuracy in per cent against cost: measured points filled, predicted ones hollow, the plan
    marked.

    Args:
        label: of the cost's axis, with its unit.
    """
    figure, axes = one_panel(3.0)
    points(axes, sorted([*measured, *predicted]), "-", color=BLUE, linewidth=1)
    if predicted:
        hollow = {"color": BLUE, "markerfacecolor": PAPER, "markersize": 4.5}
        points(axes, predicted, "o", label="predicted", **hollow)
    if measured:
        points(axes, measured, "o", color=BLUE, markersize=5, label="measured")
    if chosen is not None:
        axes.plot(*chosen, "*", label="the plan", **_STAR)
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy on search, %")
    least_span(axes, 1.0)
    legend_above(figure, axes, columns=3)
    found = "; ".join(f"{cost:.0f} %: {score:.2f} %" for cost, score in sorted(measured))
    return svg(
        figure, "Accuracy that every budget keeps", f"{label}, and accuracy on search. {found}"
    )


@styled
def predicted_against_measured(pairs: Sequence[Point]) -> str:
    """Latency as the table predicts it and as timed, in ms: on the line they agree.

    Args:
        pairs: (predicted, measured).
    """
    figure, axes = one_panel(3.2)
    edges = [min(min(pair) for pair in pairs) * 0.95, max(max(pair) for pair in pairs) * 1.05]
    below, above = ([factor * edge for edge in edges] for factor in (0.9, 1.1))
    band = {"color": GREY, "alpha": 0.35, "linewidth": 0}
    axes.fill_between(edges, below, above, label="within 10 %", **band)
    axes.plot(edges, edges, color=INK, linewidth=0.8)
    measured = [(timed, predicted) for predicted, timed in pairs]
    points(axes, measured, "o", color=BLUE, markersize=4, label="candidate")
    axes.set_xlim(*edges)
    axes.set_xlabel("measured latency, ms")
    axes.set_ylabel("predicted latency, ms")
    legend_above(figure, axes)
    return svg(
        figure,
        "Latency as predicted and as measured",
        f"{len(pairs)} candidates timed after the fit; on the line both agree.",
    )

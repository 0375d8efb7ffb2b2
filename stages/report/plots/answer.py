"""The answer as a picture: what every file costs in time and in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.run.variants import FP16, FP32, INT8
from stages.report.plots.drawing import (
    BLUE,
    INK,
    MID,
    ORANGE,
    PAPER,
    fitting,
    legend_above,
    one_panel,
    styled,
    svg,
)


@dataclass(frozen=True)
class Spot:
    """A file by latency in ms and accuracy in per cent, each (low, value, high).

    Attributes:
        pruned, precision: what was done to the network; decides colour and filling.
        further: whether it comes from elsewhere; decides the marker.
        chosen: whether it is the one that is delivered.
    """

    name: str
    ms: tuple[float, float, float]
    accuracy: tuple[float, float, float]
    pruned: bool = False
    precision: str = FP32
    further: bool = False
    chosen: bool = False


@styled
def accuracy_against_latency(spots: Sequence[Spot]) -> str:
    """All files with their 95 % intervals: the further up and to the left, the better."""
    figure, axes = one_panel(3.0)
    for spot in spots:
        _draw(axes, spot)
    axes.set_xlim(left=0)
    axes.set_xlabel("latency of a call, ms (median)")
    axes.set_ylabel("accuracy on test, %")
    legend_above(figure, axes)
    found = "; ".join(f"{s.name} {s.ms[1]:.3f} ms, {s.accuracy[1]:.2f} %" for s in spots)
    return svg(figure, "Accuracy against latency", f"{found}. Up and to the left is better.")


def _draw(axes: Any, spot: Spot) -> None:
    color = BLUE if spot.pruned else MID
    look = {
        "color": color,
        "markerfacecolor": PAPER if spot.precision == INT8 else color,
        "fillstyle": "left" if spot.precision == FP16 else "full",
        "markerfacecoloralt": PAPER,
        "markeredgecolor": color,
        "markersize": 7,
    }
    thin = {"capsize": 2, "elinewidth": 1}
    errors = [[[value - low], [high - value]] for low, value, high in (spot.ms, spot.accuracy)]
    place = (spot.ms[1], spot.accuracy[1])
    axes.errorbar(*place, xerr=errors[0], yerr=errors[1], fmt="none", ecolor=color, **thin)
    marker = "s" if spot.further else "o"
    axes.plot(*place, marker, label=fitting(spot.name), **look)
    if spot.chosen:
        ring = {"markerfacecolor": "none", "markeredgecolor": ORANGE, "markersize": 13}
        axes.plot(*place, "o", color=INK, label="delivered", **ring)

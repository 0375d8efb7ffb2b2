"""What is left of every channel group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.report.plots.drawing import (
    BLUE,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    PAPER,
    fitting,
    legend_above,
    one_panel,
    points,
    styled,
    svg,
)

_CONTROL = {
    "color": ORANGE,
    "linestyle": "none",
    "markeredgecolor": PAPER,
    "markersize": 5,
    "markeredgewidth": 0.6,
}


@dataclass(frozen=True)
class KeptGroup:
    """A channel group.

    Attributes:
        size: units in the original.
        kept: units in the end.
        earlier: units after each earlier round.
        others: units that each strategy's best keeps, by its name.
    """

    name: str
    size: int
    kept: int
    earlier: tuple[int, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)


@styled
def keep_ratios(rows: Sequence[KeptGroup], names: Sequence[str]) -> str:
    """Share of its channels that each group keeps, with the controls' choice.

    Args:
        rows: one a group, in the network's order.
        names: of the strategies in `others`, in the order of their markers.
    """
    figure, axes = one_panel(1.1 + 0.21 * len(rows))  # a row is as high whatever their number
    places = range(len(rows))
    shares = [100 * row.kept / row.size for row in rows]
    axes.barh(places, [100] * len(rows), color=GREY, alpha=0.35, height=0.8, label="original")
    axes.barh(places, shares, color=BLUE, height=0.5, label="pruned")
    earlier = [(100 * left / row.size, at) for at, row in enumerate(rows) for left in row.earlier]
    if earlier:
        points(axes, earlier, "|", color=INK, markersize=7, label="after an earlier round")
    for name, marker in zip(names, MARKERS, strict=False):
        chosen = [
            (100 * row.others[name] / row.size, at)
            for at, row in enumerate(rows)
            if name in row.others
        ]
        points(axes, chosen, marker, label=name, **_CONTROL)
    _name_rows(axes, rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the network's first group on top
    axes.set_xlim(0, 101)  # markers at 100 % are drawn whole
    axes.set_xlabel("channels kept, % of the original network's")
    legend_above(figure, axes, columns=3)
    found = "; ".join(f"{row.name}: {row.size} to {row.kept}" for row in rows)
    return svg(figure, "Channels of every group before and after", found)


def _name_rows(axes: Any, rows: Sequence[KeptGroup]) -> None:
    """Names to the left, numbers of channels to the right."""
    places = range(len(rows))
    axes.set_yticks(places, [fitting(row.name) for row in rows], fontsize=7.5)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [f"{row.size} → {row.kept}" for row in rows], fontsize=7.5)
    right.spines["right"].set_visible(False)
    right.tick_params(length=0)

"""What every step after the cut gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.report.plots.drawing import (
    BLUE,
    GREY,
    INK,
    MID,
    ORANGE,
    clamped,
    least_span,
    legend_above,
    one_panel,
    points,
    styled,
    svg,
)

_ROOM = 12  # percentage points below the best step that are drawn at most
_KEPT: Any = {
    "markerfacecolor": "none",
    "markeredgecolor": ORANGE,
    "markersize": 12,
    "markeredgewidth": 1.5,
}


@styled
def recovery(
    states: Mapping[str, float],
    epochs: Sequence[float],
    kept: str,
    teacher: float,
    noise: float,
) -> str:
    """Accuracy on the search split after every step, with the teacher's level and what was kept.

    Args:
        states: accuracy by name of the state before training, in their order.
        epochs: accuracy after each epoch of training; all in per cent.
        kept: one of the states, or "epoch N".
        noise: half of the 95 % interval of an accuracy on so many images, percentage points.
    """
    figure, axes = one_panel(3.0)
    steps = {**states, **{f"epoch {n}": value for n, value in enumerate(epochs, 1)}}
    values = list(steps.values())
    low = max(min(values), max(values) - _ROOM)
    axes.axhspan(teacher - noise, teacher + noise, color=GREY, alpha=0.3, linewidth=0)
    axes.axhline(teacher, color=MID, linestyle="--", label="original (teacher)")
    seen = [(place, max(value, low)) for place, value in enumerate(values)]
    points(axes, seen, "-", color=GREY, linewidth=1)
    points(axes, [p for p, v in zip(seen, values, strict=True) if v >= low], "o", color=BLUE)
    clamped(axes, enumerate(values), low, BLUE)
    for (place, height), value in zip(seen[: len(states)], values, strict=False):
        label = f"{value:.1f}"
        axes.annotate(label, (place, height), (5, 5), textcoords="offset points", fontsize=8)
    if kept in steps:
        axes.plot(*seen[list(steps).index(kept)], "o", color=INK, label=f"kept: {kept}", **_KEPT)
    _name_steps(axes, list(states), len(epochs))
    least_span(axes, 4 * noise)
    axes.set_ylabel("accuracy on search, %")
    legend_above(figure, axes)
    found = ", ".join(f"{name} {value:.2f} %" for name, value in states.items())
    trained = f", after {len(epochs)} epochs {epochs[-1]:.2f} %" if epochs else ""
    return svg(
        figure,
        "Accuracy after every step of the recovery",
        f"{found}{trained}; the original has {teacher:.2f} %. Kept: {kept}.",
    )


def _name_steps(axes: Any, states: Sequence[str], epochs: int) -> None:
    """Names of the states, and about six of the epochs by number."""
    before = len(states)
    every = max(1, -(-epochs // 6))
    numbered = [n for n in range(1, epochs + 1) if n % every == 0 or n == 1]
    places = [*range(before), *(before + n - 1 for n in numbered)]
    axes.set_xticks(places, [*(name.replace(" ", "\n") for name in states), *map(str, numbered)])
    if epochs:
        axes.set_xlabel("then epochs of training")

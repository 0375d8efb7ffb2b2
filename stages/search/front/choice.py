"""The cheapest plan that loses no more accuracy than it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.schema import DistillConfig
from pipeline.config.search import Budget
from stages.search.front.points import FrontPoint

FITS = 6  # plans that are reconstructed and measured to find it
RECOVERED = 0.5  # of the accuracy that reconstruction leaves missing, distillation may bring back

Measure = Callable[[float], FrontPoint]
"""budget as a share of the whole -> the plan for it, measured."""


@dataclass(frozen=True)
class Choice:
    """A search for the smallest budget within a drop of accuracy.

    Attributes:
        asked: points of accuracy that the delivered network may lose.
        allowed: points that a reconstructed one may, since recovery follows.
        original: accuracy of the original, as a fraction.
        measured: plans in the order they were measured.
        chosen: the cheapest of them that loses no more than allowed; None: all lose more.
    """

    asked: float
    allowed: float
    original: float
    measured: tuple[FrontPoint, ...]
    chosen: FrontPoint | None


def allowed_drop(budget: Budget, distill: DistillConfig) -> tuple[float, float]:
    """Points that may be lost in the end, and points that may be lacking before distillation.

    Unless these are given, distillation is expected to bring half of what is missing back; without
    any epoch, nothing. `pipeline run` checks that.
    """
    assert budget.accuracy_drop is not None
    asked = budget.accuracy_drop
    trained = distill.mode != "bn_only" and distill.epochs != 0
    return asked, budget.before_recovery or (asked / (1 - RECOVERED) if trained else asked)


def least_within(
    measure: Measure, least: float, original: float, asked: float, allowed: float
) -> Choice:
    """Halve the range of budgets, in proportion, and keep the side on which the answer lies.

    Args:
        measure: asked `FITS` times, for other budgets each time.
        least: budget of the smallest plan there is, as a share of the whole.
        original: accuracy as a fraction.
        asked, allowed: points; see `Choice`.
    """
    low, high = least, 1.0
    measured: list[FrontPoint] = []
    for _ in range(FITS):
        middle = (low * high) ** 0.5
        point = measure(middle)
        measured.append(point)
        if _within(point, original, allowed):
            high = middle
        else:
            low = middle
    within = [point for point in measured if _within(point, original, allowed)]
    chosen = min(within, key=lambda point: point.cost, default=None)
    return Choice(asked, allowed, original, tuple(measured), chosen)


def _within(point: FrontPoint, original: float, allowed: float) -> bool:
    assert point.accuracy is not None
    # a count of images over another: 0.5 points must not be missed by round-off
    return 100 * (original - point.accuracy) <= allowed + 1e-9

"""`front.json`: the points of a front as plain JSON types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.search.front.points import FrontPoint
from stages.search.problem import SearchProblem


def front_document(
    problem: SearchProblem, points: Sequence[FrontPoint], accuracy: float
) -> dict[str, Any]:
    """`front.json`; budgets and latency are fractions of the original's, latency in fp32.

    Args:
        accuracy: of the original, as a fraction.
    """
    timed = {"precision": problem.calibration.precision} if problem.calibration else {}
    return {
        "metric": problem.budget.metric,
        **timed,
        "original": {"accuracy": accuracy, **problem.original.costs},
        "points": [_row(problem, point) for point in points],
    }


def _row(problem: SearchProblem, point: FrontPoint) -> dict[str, Any]:
    costs = problem.all_costs(point.counts)
    return {
        "budget": problem.of_original(point.share),
        "metric": problem.budget.metric,
        "macs": costs["macs"],
        "params": costs["params"],
        "latency": costs.get("latency"),
        "loss": point.loss,
        "accuracy": point.accuracy,
        "measured": point.measured,
        "keep": problem.space.as_dict(point.counts),
    }

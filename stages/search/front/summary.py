"""The front that a search leaves, and what a search within a drop of accuracy came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.channels.counts import Counts
from pipeline.errors import Hint, Refused
from stages.search.evaluation.trial import Trial
from stages.search.front.choice import Choice, least_within
from stages.search.front.document import front_document
from stages.search.front.fronts import FrontMaker, completed
from stages.search.front.points import FRONT, FrontPoint
from stages.search.problem import SearchProblem
from stages.search.space.projection import Projector
from stages.search.tables.loss_table import LossTable
from stages.search.tables.solver import descent


def search_front(
    problem: SearchProblem,
    table: LossTable,
    phases: Mapping[str, Sequence[Trial]],
    choice: Choice | None,
) -> dict[str, Any]:
    """`front.json` of a search, from what it knows anyway.

    Accuracies are predicted from the plans that were measured for a drop of accuracy; without one,
    from those of all candidates as they were scored.
    """
    accuracy = choice.original if choice else problem.evaluator.of_original()[1]
    known = [
        (table(trial.candidate.counts), trial.outcome.accuracy)
        for name, trials in phases.items()
        for trial in trials
        if name != FRONT and not trial.outcome.stopped
    ]
    maker = FrontMaker(problem, table)
    path = list(descent(table, problem.projector))

    def along(table: LossTable, projector: Projector) -> Counts:
        return next(counts for counts in path if projector.fits(counts))

    whole = replace(maker.point(1.0, along), accuracy=accuracy, measured=choice is not None)
    points = [whole, *maker.points(solver=along), *(choice.measured if choice else ())]
    return front_document(problem, completed(points, known), accuracy)


def choose(maker: FrontMaker, asked: float, allowed: float) -> Choice:
    """The smallest budget whose plan loses at most `allowed` points once it is reconstructed.

    Raises:
        Refused: every plan that was measured loses more.
    """
    original = maker.whole().accuracy or 0.0

    def measure(share: float) -> FrontPoint:
        return maker.measured([maker.point(share)])[0]

    choice = least_within(measure, maker.least, original, asked, allowed)
    if choice.chosen is None:
        mildest = max(choice.measured, key=lambda point: point.cost)
        lost = 100 * (original - (mildest.accuracy or 0.0))
        raise Refused(
            f"search.budget.accuracy_drop={asked:g}: even {mildest.share:.0%} of the "
            f"{maker.problem.budget.metric} costs {lost:.2f} points before distillation, "
            f"{allowed:g} allowed",
            hint=Hint.set("search.budget.accuracy_drop", round(asked * lost / allowed + 0.05, 1)),
        )
    return choice


def share_of(problem: SearchProblem, choice: Choice) -> float:
    """The chosen plan's cost as a fraction of the whole network's."""
    assert choice.chosen is not None
    return choice.chosen.cost / problem.projector.cost.of(problem.space.sizes)


def sentence(problem: SearchProblem, choice: Choice) -> str:
    """What was chosen, for people."""
    assert choice.chosen is not None
    lost = 100 * (choice.original - (choice.chosen.accuracy or 0.0))
    return (
        f"{problem.of_original(share_of(problem, choice)):.1%} of the original's "
        f"{problem.budget.metric} is the smallest of {len(choice.measured)} budgets within "
        f"{choice.allowed:g} points before distillation: {lost:.2f} points lost"
    )


def drop_part(choice: Choice) -> dict[str, Any]:
    """Part `accuracy_drop` of the budget in `search.json`: points asked and allowed before
    distillation; accuracies as fractions of the search split.
    """
    points = sorted(choice.measured, key=lambda point: point.cost)
    return {
        "asked": choice.asked,
        "allowed": choice.allowed,
        "original": choice.original,
        "measured": [{"share": point.share, "accuracy": point.accuracy} for point in points],
    }

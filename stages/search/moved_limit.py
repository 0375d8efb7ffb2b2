"""The limit of a latency budget, in the table's terms, as the clock has it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from stages.search.latency.measured_budget import MeasuredBudget
from stages.search.latency.measurement import Timed
from stages.search.problem import SearchProblem
from stages.search.tables.loss_table import LossTable
from stages.search.tables.solver import solve


def as_measured(problem: SearchProblem, timer: Timed | None, table: LossTable) -> SearchProblem:
    """The same problem, its limit moved until the table's solution measures within the budget; as
    it is where no timing decides about candidates.
    """
    if timer is None or problem.settings.latency == "predicted":
        return problem
    budget = MeasuredBudget(timer, problem.projector, problem.budget.share)
    found = budget.corrected(partial(solve, table))
    return replace(problem, budget=replace(problem.budget, projector=found))

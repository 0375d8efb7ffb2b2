"""Strategies at equal evaluations.

Every strategy gets the same number of candidates, seeds, images and the same budget. Its leaders
are then scored alike, on more images and after more training than the trials saw, as a search's
finalists are; its best is what that final evaluation prefers, which, if a recovery is given, is
scored after it too.

The loss table is measured once, and its seconds count for each strategy that starts from it. The
others do without: what their candidates lose is guessed by the importance of what they cut.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from pipeline.channels.counts import Counts
from stages.search.engine import Search
from stages.search.evaluation.executor import InProcess
from stages.search.evaluation.trial import Outcome, Trial, finalists
from stages.search.problem import SearchProblem
from stages.search.results.comparison import StrategyComparison, StrategyRun
from stages.search.space.candidate import CountsKey, key_of
from stages.search.space.ranking import Removal
from stages.search.strategies import CONTROLS, FROM_TABLE
from stages.search.tables.loss_table import LossTable
from stages.search.tables.solver import solve
from stages.search.tabulate import Tabulation

Recover = Callable[[Counts, int], float]
"""(counts, seed) -> accuracy of the candidate after recovery, as a fraction."""

Fitter = Callable[[Counts, LossTable | None], tuple[Counts, float | None]]
"""(counts, the loss table of a strategy that has it) -> (counts brought within a measured budget,
measured fraction)."""

OnEntry = Callable[[Trial, bool], None]
"""(entry of the loss table, whether it was recorded before)"""

OnRun = Callable[[int, int, StrategyRun], None]
"""(done, total, run); called after every search and again after every recovery."""


RunKey = tuple[str, int]
"""(strategy, seed)"""


def compare_strategies(
    problem: SearchProblem,
    strategies: Sequence[str],
    seeds: Sequence[int],
    *,
    trials: int | None = None,
    recover: Recover | None = None,
    recover_seeds: Sequence[int] | None = None,
    fit: Fitter | None = None,
    correct: Callable[[LossTable], SearchProblem] | None = None,
    on_run: OnRun = lambda done, total, run: None,
    known: Mapping[RunKey, StrategyRun] | None = None,
    recorded: Mapping[tuple[str, int], Trial] | None = None,
    on_entry: OnEntry = lambda entry, replayed: None,
) -> StrategyComparison:
    """Run every strategy with every seed; the first is the one that the others are compared with.

    All searches come first, then the recoveries. Deterministic strategies search once.

    Args:
        trials: evaluations each; `search.trials` when absent. Strategies that do not search use
            one.
        recover: what recovers the best candidates; absent: they are not recovered.
        recover_seeds: those of `seeds` whose best candidates are recovered; all when absent.
        fit: brings a best candidate within a measured budget.
        correct: the problem with its limit moved to what a measured budget comes to, the same for
            all strategies; where absent, it stays.
        known: runs made before; what they hold is not repeated.
        recorded: entries of the loss table measured before. on_entry: called for each.
    """
    known = known or {}
    order = [(name, seed) for seed in seeds for name in strategies]
    fresh = [key for key in order if key[0] not in CONTROLS or key[1] == seeds[0]]
    again = [key for key in order if recover_seeds is None or key[1] in recover_seeds]
    total = len(fresh) + (len(again) if recover else 0)
    searches = _Searches(problem, trials, fit, correct, recorded or {}, on_entry)
    runs: dict[RunKey, StrategyRun] = {}
    for done, key in enumerate(fresh):
        runs[key] = known.get(key) or searches.run(*key)
        on_run(done + 1, total, runs[key])
    for name, seed in order:
        if (name, seed) not in runs:
            searched = runs[name, seeds[0]]
            runs[name, seed] = known.get((name, seed)) or _copied(searched, seed)
    if recover:
        recovery = _Recovery(recover, list(runs.values()))
        for done, key in enumerate(again):
            runs[key] = recovery(runs[key])
            on_run(len(fresh) + done + 1, total, runs[key])
    return StrategyComparison.of([runs[name, seed] for name in strategies for seed in seeds])


class _Searches:
    """Searches of one problem, all from the same table, which the first of them measures."""

    def __init__(
        self,
        problem: SearchProblem,
        trials: int | None,
        fit: Fitter | None,
        correct: Callable[[LossTable], SearchProblem] | None,
        recorded: Mapping[tuple[str, int], Trial],
        on_entry: OnEntry,
    ) -> None:
        self.problem, self.fit, self.correct = problem, fit, correct
        self.recorded, self.on_entry = recorded, on_entry
        self.trials = trials or problem.settings.trials

    @cached_property
    def tabulated(self) -> tuple[LossTable, float]:
        """The table, and the seconds that its entries took."""
        problem = self.problem
        evaluator = InProcess(problem.table_evaluator())
        search = Search(evaluator, recorded=self.recorded, on_trial=self.on_entry)
        tabulation = Tabulation(problem.space, problem.settings.table.widths, search)
        table = tabulation()
        return table, sum(entry.outcome.seconds for entry in tabulation.trials)

    @cached_property
    def start(self) -> Counts:
        """The table's solution."""
        return solve(self.tabulated[0], self.corrected.projector)

    @cached_property
    def corrected(self) -> SearchProblem:
        """The problem that is searched."""
        return self.problem if self.correct is None else self.correct(self.tabulated[0])

    def run(self, name: str, seed: int) -> StrategyRun:
        """One search, and its best candidate by the final evaluation."""
        problem, settings = self.corrected, self.problem.settings
        table, before = self.tabulated if name in FROM_TABLE else (None, 0.0)
        removed = Removal(problem.importance) if table is None else table
        executor = InProcess(problem.evaluator)
        search = Search(executor, removed, settings.evaluation, settings.halving)
        start = None if table is None else self.start
        strategy = problem.strategy(name, trials=self.trials, table=table, start=start, seed=seed)
        done = search.run(name, strategy, self.trials)
        leaders = [trial.candidate.counts for trial in finalists(done, settings.finalists)]
        counts, measured, outcome = _best(problem, leaders, self.fit, table)
        return StrategyRun(
            strategy=name,
            seed=seed,
            evaluations=len(done),
            distinct=len({trial.key for trial in done}),
            score=outcome.score,
            accuracy=outcome.accuracy,
            counts=key_of(counts),
            cost=_cost(problem, counts),
            seconds=sum(trial.outcome.seconds for trial in done if not trial.cached),
            measured=None if measured is None else problem.of_original(measured),
            table_seconds=before,
            course=tuple(_course(done, before)),
        )


def _course(trials: Sequence[Trial], seconds: float) -> Iterator[tuple[int, float, float]]:
    """(trials, seconds, score) whenever the best score rises."""
    best = -math.inf
    for done, trial in enumerate(trials, 1):
        seconds += 0.0 if trial.cached else trial.outcome.seconds
        if trial.complete and trial.outcome.score > best:
            best = trial.outcome.score
            yield done, seconds, best


def _cost(problem: SearchProblem, counts: Counts) -> float:
    """In the unit of the budget; latency as a fraction of the original's."""
    cost = problem.projector.cost.of(counts)
    return cost if problem.calibration is None else problem.of_original(cost)


def _best(
    problem: SearchProblem, leaders: Sequence[Counts], fit: Fitter | None, table: LossTable | None
) -> tuple[Counts, float | None, Outcome]:
    """The leader that scores best in the end: counts, measured latency and outcome.

    Leaders above a measured budget count only where all are, since larger networks score better.
    """
    final = problem.final_evaluator() or problem.evaluator
    # first within the budget, then scored: cutting a little more changes the score
    fitted = [fit(counts, table) if fit else (counts, None) for counts in leaders]
    share = problem.budget.share
    within = [found for found in fitted if found[1] is None or found[1] <= share]
    scored = [(counts, measured, final(counts)) for counts, measured in within or fitted]
    return max(scored, key=lambda found: found[2].score)


def _copied(run: StrategyRun, seed: int) -> StrategyRun:
    """What a deterministic strategy finds with another seed: the same, in no time."""
    return replace(run, seed=seed, seconds=0.0, copied=True, recovered=None, recovery_seconds=None)


class _Recovery:
    """Recovers candidates, the same one with the same seed once."""

    def __init__(self, recover: Recover, runs: Sequence[StrategyRun]) -> None:
        self.recover = recover
        self.known: dict[tuple[CountsKey, int], float] = {
            (run.counts, run.seed): run.recovered for run in runs if run.recovered is not None
        }

    def __call__(self, run: StrategyRun) -> StrategyRun:
        """The run with the accuracy of its candidate after recovery."""
        if run.recovered is not None:
            return run
        start, key = time.perf_counter(), (run.counts, run.seed)
        if key not in self.known:
            self.known[key] = self.recover(np.array(run.counts, dtype=np.int64), run.seed)
        seconds = time.perf_counter() - start
        return replace(run, recovered=self.known[key], recovery_seconds=seconds)

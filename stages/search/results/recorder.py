"""Keeps trials as they finish, and says how far a search is."""

from __future__ import annotations

import time
from collections.abc import Callable

from stages.search.evaluation.trial import Trial
from stages.search.problem import SearchProblem
from stages.search.results.journal import Journal

OnProgress = Callable[..., None]
"""(done, total, **fields); see `pipeline.run.stage.Reporter`."""


class Recorder:
    """Called for every trial: new ones go to the journal, those of the strategy are reported.

    Args:
        total: trials that the strategy will have at most.
    """

    def __init__(
        self, problem: SearchProblem, journal: Journal, progress: OnProgress, total: int
    ) -> None:
        self.problem, self.journal, self.progress, self.total = problem, journal, progress, total
        self.begun, self.done, self.hits, self.scored = time.monotonic(), 0, 0, 0
        self.best: float | None = None

    def __call__(self, trial: Trial, replayed: bool) -> None:
        if not replayed:
            self.journal.append(trial, self.problem.all_costs(trial.candidate.counts))
            self.scored += 1
        self.hits += trial.cached
        if self._reported(trial):
            self._report(trial)

    def _reported(self, trial: Trial) -> bool:
        return trial.phase == self.problem.settings.strategy

    def _eta(self) -> float:
        """Seconds to go, about."""
        each = (time.monotonic() - self.begun) / max(1, self.scored)
        return round(each * (self.total - self.done), 1)

    def _report(self, trial: Trial) -> None:
        score = trial.outcome.score
        self.done += 1
        if trial.complete:
            self.best = score if self.best is None else max(score, self.best)
        self.progress(
            self.done,
            self.total,
            best=self.best,
            accuracy=trial.outcome.accuracy,
            budget=self._spent(trial),
            cache_hits=self.hits,
            eta_s=self._eta(),
        )

    def _spent(self, trial: Trial) -> str:
        """What the candidate costs and may cost, as fractions of the original."""
        problem, counts = self.problem, trial.candidate.counts
        metric = problem.budget.metric
        spent = problem.all_costs(counts)[metric] / problem.original.costs.get(metric, 1)
        side = "of" if problem.projector.fits(counts) else "above"
        return f"{metric} {spent:.1%} {side} {problem.budget.asked:.1%}"


class TableRecorder(Recorder):
    """The same for the entries of the loss table, all of which are reported.

    Attributes:
        total: entries there will be at most; it may fall as they are measured.
    """

    what = "widths measured for the loss table"

    def expect(self, total: int) -> None:
        """There will be `total` entries at most."""
        self.total = total

    def _reported(self, trial: Trial) -> bool:
        return True

    def _report(self, trial: Trial) -> None:
        self.done += 1
        self.progress(self.done, self.total, what=self.what, eta_s=self._eta())


class FrontRecorder(TableRecorder):
    """The same for plans of the front."""

    what = "plans reconstructed and measured"

"""Successive halving: who is promoted from a rung, and what a strategy is told of the others.

How far a few images are from the original's answers says little about what training will mend; how
important the cut channels were says much of the rest, and costs nothing
(`tests/bench/fidelity.py`). So candidates are compared by the score that both together predict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.channels.counts import Counts
from pipeline.config.search import EvaluationConfig
from stages.search.evaluation.score_model import ScoreModel
from stages.search.evaluation.trial import Trial
from stages.search.space.ranking import Removed

Thresholds = tuple[float, ...]
"""Least score at each rung with which a candidate is promoted."""

ENOUGH = 8  # scored candidates before a score model means anything


@dataclass(frozen=True)
class Promotion:
    """Score models of the rungs, and the predicted score from which a candidate is promoted.

    A policy that learns proposes ever more that would pass; the next ones are let through only as
    far as makes up for what passed so far, down to none but those predicted above all of the
    latest.
    """

    rungs: tuple[tuple[ScoreModel, float], ...]
    removed: Removed
    rules: EvaluationConfig

    @classmethod
    def of(cls, trials: Sequence[Trial], removed: Removed, rules: EvaluationConfig) -> Promotion:
        """From the trials so far."""
        rungs = []
        for rung, model in enumerate(_score_models(trials, removed, rules)):
            known = [trial for trial in trials if len(trial.outcome.rungs) > rung]
            predicted = [
                model.predict(trial.outcome.rungs[rung], removed(trial.candidate.counts))
                for trial in known[-rules.window :]
            ]
            share = _share(known, rung, rules)
            rungs.append((model, float(np.quantile(predicted, 1 - share))))
        return cls(tuple(rungs), removed, rules)

    def thresholds(self, counts: Counts) -> Thresholds:
        """Least score at each rung for this candidate; where nothing is known yet, none."""
        removed = self.removed(counts)
        found = [model.rung_for(score, removed) for model, score in self.rungs]
        return (*found, *(-math.inf,) * (len(self.rules.rungs) - len(found)))


def _share(known: Sequence[Trial], rung: int, rules: EvaluationConfig) -> float:
    """Share of the next candidates to promote, so that the share of all comes out as asked."""
    met = known[ENOUGH:]  # before them there was no threshold
    passed = sum(not t.outcome.stopped or len(t.outcome.rungs) > rung + 1 for t in met)
    ahead = rules.lookahead
    wanted = (rules.promote * (len(met) + ahead) - passed) / ahead
    return float(np.clip(wanted, 0, min(1.0, 2 * rules.promote)))


def told_scores(trials: Sequence[Trial], removed: Removed, rules: EvaluationConfig) -> list[float]:
    """Scores as a strategy is told them.

    Of a candidate that was not promoted, what its last rung predicts.
    """
    models = _score_models(trials, removed, rules)
    scores = []
    for trial in trials:
        outcome, last = trial.outcome, len(trial.outcome.rungs) - 1
        if outcome.stopped and last < len(models):
            lost = removed(trial.candidate.counts)
            scores.append(models[last].predict(outcome.rungs[last], lost))
        else:
            scores.append(outcome.score)
    return scores


def _score_models(
    trials: Sequence[Trial], removed: Removed, rules: EvaluationConfig
) -> list[ScoreModel]:
    """One a rung, for as many as enough complete candidates went beyond."""
    found = []
    for rung in range(len(rules.rungs)):
        beyond = [t for t in trials if not t.outcome.stopped and len(t.outcome.rungs) > rung]
        if len(beyond) < ENOUGH:  # further rungs saw fewer still
            break
        at_rung = [t.outcome.rungs[rung] for t in beyond]
        lost = [removed(t.candidate.counts) for t in beyond]
        found.append(ScoreModel.fit(at_rung, lost, [t.outcome.score for t in beyond]))
    return found

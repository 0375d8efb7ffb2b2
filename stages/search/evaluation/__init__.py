"""What a candidate is worth, found out as cheaply as ranking the candidates allows."""

from __future__ import annotations

from stages.search.evaluation.evaluator import WORST, Evaluator
from stages.search.evaluation.executor import Executor, InProcess, Pool
from stages.search.evaluation.halving import ENOUGH, Promotion, Thresholds, told_scores
from stages.search.evaluation.score_model import RIDGE, ScoreModel
from stages.search.evaluation.scores import SCORES
from stages.search.evaluation.trial import Outcome, Trial, finalists, ranked

CONSTANTS: dict[str, object] = {
    "score_of_no_number": WORST,
    "trials_before_a_score_model": ENOUGH,
    "score_model_ridge": RIDGE,
}
"""What is no setting and yet shapes the result; kept in `search.json`."""

__all__ = [
    "CONSTANTS",
    "SCORES",
    "Evaluator",
    "Executor",
    "InProcess",
    "Outcome",
    "Pool",
    "Promotion",
    "ScoreModel",
    "Thresholds",
    "Trial",
    "finalists",
    "ranked",
    "told_scores",
]

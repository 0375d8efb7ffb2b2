"""What is predicted from a rung and from what is cut, and what becomes of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pipeline.config.search import EvaluationConfig
from stages.search.evaluation import Outcome, Promotion, ScoreModel, Trial, told_scores
from stages.search.space import Candidate

RULES = EvaluationConfig()


def trial(removed: float, score: float, *rungs: float, stopped: bool = False) -> Trial:
    candidate = Candidate(np.array([removed]), np.zeros(1), "x")
    return Trial("rl", 0, candidate, Outcome(score, rungs, 0.5, 10, stopped, 0.0))


def removed(counts: np.ndarray) -> float:
    return float(counts[0])


def many(count: int = 40, seed: int = 0) -> list[Trial]:
    """score = -1 + 0.5 * rung - 0.2 * removed, seen at two rungs of one scale."""
    rng = np.random.default_rng(seed)
    drawn = zip(rng.uniform(-2, 0, count), rng.uniform(0, 5, count), strict=True)
    return [trial(cut, -1 + 0.5 * rung - 0.2 * cut, rung, rung) for rung, cut in drawn]


def test_a_score_model_finds_the_weights_of_both() -> None:
    trials = many(400)
    found = ScoreModel.fit(
        [t.outcome.rungs[0] for t in trials],
        [removed(t.candidate.counts) for t in trials],
        [t.outcome.score for t in trials],
    )
    assert (found.level, found.slope, found.loss) == pytest.approx((-1, 0.5, -0.2), abs=0.01)
    assert found.rung_for(found.predict(-0.7, 2.0), 2.0) == pytest.approx(-0.7)


def test_a_better_rung_never_counts_against_a_candidate_and_a_larger_cut_never_for_it() -> None:
    rungs, cuts = [-3.0, -2.0, -1.0, 0.0], [1.0, 3.0, 2.0, 4.0]
    both_wrong = ScoreModel.fit(rungs, cuts, [3.0, 2.5, 2.0, 3.2])
    assert both_wrong.slope >= 0 >= both_wrong.loss
    flat = ScoreModel.fit(rungs, [2.0] * 4, [4.0, 3.0, 2.0, 1.0])
    assert (flat.level, flat.slope, flat.loss) == (2.5, 0.0, 0.0)
    assert (flat.rung_for(2.4, 9.0), flat.rung_for(2.6, 9.0)) == (-math.inf, math.inf)


def test_what_was_stopped_is_told_as_predicted_and_the_rest_as_scored() -> None:
    whole = many()
    scores = told_scores([*whole, trial(1.0, -0.3, -0.3, stopped=True)], removed, RULES)
    assert scores[:-1] == [t.outcome.score for t in whole]
    assert scores[-1] == pytest.approx(-1 + 0.5 * -0.3 - 0.2, abs=0.05)
    few = [*whole[:3], trial(1.0, -0.3, -0.3, stopped=True)]
    assert told_scores(few, removed, RULES)[-1] == -0.3, "three are no ground for a prediction"


def test_thresholds_ask_less_of_the_rung_where_less_is_cut() -> None:
    promotion = Promotion.of(many(), removed, RULES)
    gentle, harsh = (promotion.thresholds(np.array([cut])) for cut in (1.0, 3.0))
    assert [h - g for g, h in zip(gentle, harsh, strict=True)] == pytest.approx(
        [2 * 0.2 / 0.5] * 2, rel=0.1
    )
    unknown = Promotion.of(many(7), removed, RULES)
    assert unknown.thresholds(np.array([1.0])) == (-math.inf, -math.inf)


@pytest.mark.parametrize("promote", [0.25, 0.5])
def test_a_policy_that_improves_is_not_promoted_more_than_the_share(promote: float) -> None:
    rng, trials = np.random.default_rng(0), many(8)
    rules = EvaluationConfig(promote=promote)
    for index in range(200):
        rung = -2 + 0.01 * index + 0.3 * rng.standard_normal()
        thresholds = Promotion.of(trials, removed, rules).thresholds(np.array([1.0]))
        passed = sum(itertools.takewhile(bool, (rung >= least for least in thresholds)))
        rungs = (rung,) * min(passed + 1, 2)
        trials.append(trial(1.0, -1 + 0.5 * rung - 0.2, *rungs, stopped=passed < 2))
    beyond_first = sum(len(t.outcome.rungs) == 2 for t in trials[8:])
    assert abs(beyond_first / 200 - promote) < 0.05
    assert sum(not t.outcome.stopped for t in trials[8:]) < (promote + 0.1) * beyond_first


def test_as_many_thresholds_as_rungs_are_set() -> None:
    rules = EvaluationConfig(rungs=(32,), rung_shares=(0.1,))
    assert Promotion.of([], removed, rules).thresholds(np.array([1.0])) == (-math.inf,)
    with pytest.raises(ValueError, match="as many rung_shares as rungs"):
        EvaluationConfig(rungs=(32,))

"""What is forecast from a glance and from what is cut, and what becomes of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from search_nets import setup

from stages.search.critic import Critic
from stages.search.evaluate import Outcome
from stages.search.forecast import Forecast
from stages.search.halving import Hurdles, estimates
from stages.search.strategies import Proposal
from stages.search.trial import Trial


def trial(removed: float, score: float, *rungs: float, stopped: bool = False) -> Trial:
    proposal = Proposal(np.array([removed]), np.zeros(1), "x")
    return Trial("rl", 0, proposal, Outcome(score, rungs, 0.5, 10, stopped, 0.0))


def removed(counts: np.ndarray) -> float:
    return float(counts[0])


def many(count: int = 40, seed: int = 0) -> list[Trial]:
    """score = -1 + 0.5 * glance - 0.2 * removed, seen at two glances of one scale."""
    rng = np.random.default_rng(seed)
    drawn = zip(rng.uniform(-2, 0, count), rng.uniform(0, 5, count), strict=True)
    return [trial(cut, -1 + 0.5 * glance - 0.2 * cut, glance, glance) for glance, cut in drawn]


def test_a_forecast_finds_the_weights_of_both() -> None:
    trials = many(400)
    found = Forecast.fit(
        [t.outcome.rungs[0] for t in trials],
        [removed(t.proposal.counts) for t in trials],
        [t.outcome.score for t in trials],
    )
    assert (found.level, found.slope, found.loss) == pytest.approx((-1, 0.5, -0.2), abs=0.01)
    assert found.needed(found(-0.7, 2.0), 2.0) == pytest.approx(-0.7)


def test_a_better_glance_never_counts_against_a_candidate_and_a_larger_cut_never_for_it() -> None:
    glances, cuts = [-3.0, -2.0, -1.0, 0.0], [1.0, 3.0, 2.0, 4.0]
    both_wrong = Forecast.fit(glances, cuts, [3.0, 2.5, 2.0, 3.2])
    assert both_wrong.slope >= 0 >= both_wrong.loss
    flat = Forecast.fit(glances, [2.0] * 4, [4.0, 3.0, 2.0, 1.0])
    assert (flat.level, flat.slope, flat.loss) == (2.5, 0.0, 0.0)
    assert (flat.needed(2.4, 9.0), flat.needed(2.6, 9.0)) == (-math.inf, math.inf)


def test_what_was_stopped_is_told_as_forecast_and_the_rest_as_scored() -> None:
    whole = many()
    told = estimates([*whole, trial(1.0, -0.3, -0.3, stopped=True)], removed)
    assert told[:-1] == [t.outcome.score for t in whole]
    assert told[-1] == pytest.approx(-1 + 0.5 * -0.3 - 0.2, abs=0.05)
    few = [*whole[:3], trial(1.0, -0.3, -0.3, stopped=True)]
    assert estimates(few, removed)[-1] == -0.3, "three are no ground for a forecast"


def test_hurdles_ask_less_of_the_glance_where_less_is_cut() -> None:
    hurdles = Hurdles.of(many(), removed)
    gentle, harsh = (hurdles.bars(np.array([cut])) for cut in (1.0, 3.0))
    assert [h - g for g, h in zip(gentle, harsh, strict=True)] == pytest.approx(
        [2 * 0.2 / 0.5] * 2, rel=0.1
    )
    assert Hurdles.of(many(7), removed).bars(np.array([1.0])) == (-math.inf, -math.inf)


def test_a_policy_that_improves_does_not_carry_on_more_than_the_share() -> None:
    rng, trials = np.random.default_rng(0), many(8)
    for index in range(200):
        glance = -2 + 0.01 * index + 0.3 * rng.standard_normal()
        bars = Hurdles.of(trials, removed).bars(np.array([1.0]))
        passed = sum(itertools.takewhile(bool, (glance >= bar for bar in bars)))
        rungs = (glance,) * min(passed + 1, 2)
        trials.append(trial(1.0, -1 + 0.5 * glance - 0.2, *rungs, stopped=passed < 2))
    beyond_first = sum(len(t.outcome.rungs) == 2 for t in trials[8:])
    assert 0.2 < beyond_first / 200 < 0.3
    assert sum(not t.outcome.stopped for t in trials[8:]) < 0.35 * beyond_first


def test_removed_importance_is_that_of_the_least_important_units() -> None:
    ready = setup()
    rng = np.random.default_rng(0)
    counts = ready.projector.logits(rng.standard_normal(len(ready.space)))
    kept = ready.evaluator.ranking.keep(counts)
    total = sum(float(ready.importance[name].double().sum()) for name in ready.space.ids)
    held = sum(
        float(ready.importance[name].double()[list(units)].sum()) for name, units in kept.items()
    )
    assert ready.removed(counts) == pytest.approx(total - held)
    assert ready.removed(ready.space.sizes) == 0


def test_the_critic_starts_from_what_is_cut_and_learns_what_that_leaves_unexplained() -> None:
    rng = np.random.default_rng(0)
    ratios, cuts = rng.uniform(0.2, 1.0, (40, 6)), rng.uniform(1.0, 5.0, 40)
    scores = -0.5 * cuts + np.sin(3 * ratios[:, 0])
    critic = Critic.fit(ratios[:30], cuts[:30], scores[:30])
    assert critic.trend.loss == pytest.approx(-0.5, abs=0.15)
    mean, covariance = critic.predict(ratios[30:], cuts[30:])
    assert np.corrcoef(mean, scores[30:])[0, 1] > 0.95
    assert np.all(np.diag(covariance) >= 0)
    same = np.repeat(ratios[:1], 2, axis=0)
    assert critic.choose(same, np.array([4.0, 1.0]), 1, 0.0) == [1], (
        "of two alike the one that cuts less"
    )

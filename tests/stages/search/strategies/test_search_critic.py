"""The critic of `rl` predicts scores from keep ratios."""

from __future__ import annotations

import numpy as np
import pytest

from stages.search.strategies.critic import Critic


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


def test_choices_differ_from_one_another_where_nothing_tells_them_apart() -> None:
    rng = np.random.default_rng(1)
    ratios = rng.uniform(0.2, 1.0, (20, 3))
    critic = Critic.fit(ratios, np.zeros(20), rng.standard_normal(20))
    points = np.concatenate([np.full((3, 3), 0.9), np.full((3, 3), 0.1)])
    chosen = critic.choose(points, np.zeros(6), 2, 10.0)
    assert {index // 3 for index in chosen} == {0, 1}, (
        "what one of them resolves, its twin does not"
    )

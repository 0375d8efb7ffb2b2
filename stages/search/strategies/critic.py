"""A critic for policies: predicts a candidate's score, and how unsure it is, from its keep ratios.

Gaussian-process regression with the kernel

    k(x, y) = v * mean over groups g of exp(-(x_g - y_g)^2 / 2 l^2)
              + (1 - v) * exp(-|x - y|^2 / 2 G l^2)

The first part says that a group's width has its own effect whatever the others do, which is what
makes tens of groups learnable from tens of trials; the second lets groups interact. The process
describes what a straight line over the importance of the cut channels leaves unexplained. l, v and
the noise are chosen by marginal likelihood (Rasmussen & Williams, Gaussian Processes for Machine
Learning, 2.3 and 5.4).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.search.evaluation.score_model import ScoreModel

Array = NDArray[np.float64]
_LENGTHS = (0.15, 0.3, 0.6)  # l, in keep ratios
_SHARES = (0.5, 0.8, 1.0)  # v
_NOISES = (1e-4, 1e-2, 1e-1)  # variance, of scores of variance 1
_WORST = 4  # median deviations below the median

CONSTANTS: dict[str, object] = {
    "critic_lengths": list(_LENGTHS),
    "critic_shares": list(_SHARES),
    "critic_noises": list(_NOISES),
    "critic_worst": _WORST,
}


@dataclass(frozen=True)
class Critic:
    """A fitted model; `fit` makes it.

    Attributes:
        points: keep ratios (n, G) it was fitted to.
        length, share, noise: l, v and the noise.
        factor, weights: Cholesky factor (n, n) of the kernel matrix, and its inverse times the
            scores (n,).
        trend: the straight line over the removed importance.
        scale: standard deviation of what that leaves unexplained.
    """

    points: Array
    length: float
    share: float
    noise: float
    factor: Array
    weights: Array
    trend: ScoreModel
    scale: float

    @classmethod
    def fit(cls, points: Array, removed: Array, scores: Array) -> Critic:
        """Fit to keep ratios (n, G) in 0..1, importances of what is cut and scores, (n,), n >= 2.

        Scores more than 4 median deviations below the median are raised to that, so that one broken
        candidate does not flatten the differences among good ones.
        """
        middle = np.median(scores)
        spread = np.median(np.abs(scores - middle)) or float(np.std(scores)) or 1.0
        clipped = np.maximum(scores, middle - _WORST * spread)
        trend = ScoreModel.fit(np.zeros(len(scores)), removed, clipped)
        rest = clipped - trend.level - trend.loss * removed
        scale = float(rest.std()) or 1.0
        return cls(points, *_most_likely(points, rest / scale), trend, scale)

    def predict(self, points: Array, removed: Array) -> tuple[Array, Array]:
        """Mean score (m,) and covariance (m, m).

        Args:
            points: keep ratios (m, G).
            removed: importances of what is cut, (m,).
        """
        cross = _mix(*_kernels(points, self.points), self.length, self.share)
        prior = _mix(*_kernels(points, points), self.length, self.share)
        half = np.linalg.solve(self.factor, cross.T)
        mean = cross @ self.weights * self.scale + self.trend.level + self.trend.loss * removed
        return mean, (prior - half.T @ half) * self.scale**2

    def choose(self, points: Array, removed: Array, count: int, curiosity: float) -> list[int]:
        """Indices of `count` points to score next, by the upper bound mean + curiosity * deviation.

        They are chosen one after the other, each first shrinking the uncertainty that it would
        resolve, so that they differ.
        """
        mean, covariance = self.predict(points, removed)
        chosen: list[int] = []
        for _ in range(min(count, len(points))):
            variance = np.maximum(np.diag(covariance), 0)
            bound = mean + curiosity * np.sqrt(variance)
            bound[chosen] = -np.inf
            pick = int(np.argmax(bound))
            chosen.append(pick)
            column = covariance[:, pick]
            total = variance[pick] + self.noise * self.scale**2 + 1e-12
            covariance = covariance - np.outer(column, column) / total
        return chosen


def _kernels(x: Array, y: Array) -> tuple[Array, Array]:
    """Per-group and joint squared distances, (n, m, G) and (n, m)."""
    squared = (x[:, None, :] - y[None, :, :]) ** 2
    return squared, squared.mean(axis=2)


def _mix(squared: Array, joint: Array, length: float, share: float) -> Array:
    scale = -0.5 / length**2
    return share * np.exp(squared * scale).mean(axis=2) + (1 - share) * np.exp(joint * scale)


def _most_likely(points: Array, target: Array) -> tuple[float, float, float, Array, Array]:
    """Length, share, noise, Cholesky factor (n, n) and weights (n,) of the largest evidence."""
    squared, joint = _kernels(points, points)
    best: tuple[float, Any] | None = None
    for length, share in itertools.product(_LENGTHS, _SHARES):
        gram = _mix(squared, joint, length, share)
        for noise in _NOISES:
            factor = np.linalg.cholesky(gram + (noise + 1e-8) * np.eye(len(points)))
            weights = np.linalg.solve(factor.T, np.linalg.solve(factor, target))
            evidence = -0.5 * float(target @ weights) - float(np.log(np.diag(factor)).sum())
            if best is None or evidence > best[0]:
                best = (evidence, (length, share, noise, factor, weights))
    assert best is not None
    found: tuple[float, float, float, Array, Array] = best[1]
    return found

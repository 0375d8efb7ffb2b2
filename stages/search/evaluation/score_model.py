"""A linear model of a candidate's score, from its score at a rung and from what it cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RIDGE = 0.5  # in observations: with few of them, predictions stay near their mean


@dataclass(frozen=True)
class ScoreModel:
    """score = level + slope * rung + loss * removed, by least squares.

    Attributes:
        slope: of the score at the rung, at least 0.
        loss: of the removed importance, at most 0.
    """

    level: float
    slope: float
    loss: float

    @classmethod
    def fit(cls, rungs: ArrayLike, removed: ArrayLike, scores: ArrayLike) -> ScoreModel:
        """From candidates that saw all images, (n,) each, n >= 1.

        A term that comes out with the wrong sign is left out.
        """
        columns, target = np.array([rungs, removed]).T, np.array(scores)
        middle, spread = columns.mean(axis=0), columns.std(axis=0)
        # what never varies explains nothing, and has no scale
        weights, used = np.zeros(2), spread > 1e-12 * (1 + np.abs(middle))
        while used.any():
            scaled = (columns[:, used] - middle[used]) / spread[used]
            gram = scaled.T @ scaled + RIDGE * np.eye(len(scaled.T))
            weights = np.zeros(2)
            weights[used] = (
                np.linalg.solve(gram, scaled.T @ (target - target.mean())) / spread[used]
            )
            wrong = weights * (1, -1) < 0
            weights, used = np.where(wrong, 0.0, weights), used & ~wrong
            if not wrong.any():
                break
        return cls(float(target.mean() - weights @ middle), float(weights[0]), float(weights[1]))

    def predict(self, rung: float, removed: float) -> float:
        """Score of a candidate with this score at the rung that cuts this much importance."""
        return self.level + self.slope * rung + self.loss * removed

    def rung_for(self, score: float, removed: float) -> float:
        """Score at the rung from which `score` is predicted; infinite where none or any does."""
        rest = score - self.level - self.loss * removed
        if self.slope > 0:
            return rest / self.slope
        return math.inf if rest > 0 else -math.inf

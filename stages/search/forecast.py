"""A linear forecast of a candidate's score from a glance at it and from what it cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RIDGE = 0.5  # in observations: with few of them, forecasts stay near their mean


@dataclass(frozen=True)
class Forecast:
    """score = level + slope * glance + loss * removed, by least squares.

    Attributes:
        slope: at least 0.
        loss: at most 0.
    """

    level: float
    slope: float
    loss: float

    @classmethod
    def fit(cls, glances: ArrayLike, removed: ArrayLike, scores: ArrayLike) -> Forecast:
        """From candidates that were scored as a whole; a term that comes out with the wrong
        sign is left out.
        """
        columns, target = np.array([glances, removed]).T, np.array(scores)
        middle, spread = columns.mean(axis=0), columns.std(axis=0)
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

    def __call__(self, glance: float, removed: float) -> float:
        return self.level + self.slope * glance + self.loss * removed

    def needed(self, score: float, removed: float) -> float:
        """The glance that promises `score`."""
        rest = score - self.level - self.loss * removed
        if self.slope > 0:
            return rest / self.slope
        return math.inf if rest > 0 else -math.inf

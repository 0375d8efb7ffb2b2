"""How many units each group keeps, as arrays, and what a price on them offers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""Units kept, (G,) or (B, G), in the order of the group ids that they were asked for with."""

Array = NDArray[np.float64]


class Cost(Protocol):
    """What a budget is expressed in: never decreases when a group keeps more units."""

    @property
    def metric(self) -> str: ...

    def of(self, counts: Counts) -> float:
        """Cost of one candidate; `counts` (G,)."""
        ...

    def each(self, counts: Counts) -> Array:
        """Costs (B,) of candidates (B, G)."""
        ...

    def deltas(self, counts: Counts, steps: Counts) -> Array:
        """Change in cost, (G,), when group g alone goes from `counts[g]` to `counts[g] +
        steps[g]`.
        """
        ...

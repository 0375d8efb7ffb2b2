"""Cost of a candidate as a function of its widths alone, quick enough for thousands of calls a second.

A convolution's or linear layer's MACs and parameters are a constant times its input width times its
output width, and both widths are sums of group counts. So a whole network's cost is

    cost(k) = sum over terms t:  c_t * (I_t . k + i_t) * (O_t . k + o_t)

with k the units kept per group: one multiplication per layer, exact in float64 (all integers < 2^53).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.search.space import Counts

Matrix = NDArray[np.float64]


class Cost(Protocol):
    """What a budget is expressed in: never decreases when a group keeps more units."""

    metric: str

    def of(self, counts: Counts) -> float:
        """Cost of one candidate; `counts` (G,) int64."""
        ...

    def deltas(self, counts: Counts, steps: Counts) -> NDArray[np.float64]:
        """Change in cost, (G,), when group g alone goes from `counts[g]` to `counts[g] + steps[g]`."""
        ...


@dataclass(frozen=True)
class ProductCost:
    """The sum of products in the module docstring.

    Attributes:
        metric: "macs" or "params".
        factor: (T,) constants c.
        inputs, outputs: (T, G) matrices I and O.
        input_base, output_base: (T,) widths that no prunable group contributes to, i and o.
    """

    metric: str
    factor: NDArray[np.float64]
    inputs: Matrix
    outputs: Matrix
    input_base: NDArray[np.float64]
    output_base: NDArray[np.float64]

    def of(self, counts: Counts) -> float:
        return float(
            self.factor @ ((self.inputs @ counts + self.input_base) * (self.outputs @ counts + self.output_base))
        )

    def deltas(self, counts: Counts, steps: Counts) -> NDArray[np.float64]:
        wide_in = self.inputs @ counts + self.input_base
        wide_out = self.outputs @ counts + self.output_base
        linear = (self.factor * wide_out) @ self.inputs + (self.factor * wide_in) @ self.outputs
        return steps * linear + steps * steps * (self.factor @ (self.inputs * self.outputs))

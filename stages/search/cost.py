"""Cost of a candidate as a function of its widths alone, quick enough for thousands of calls a
second.

A convolution's or linear layer's MACs and parameters are a constant times its input width times its
output width, and both widths are sums of group counts. So a whole network's cost is

    cost(k) = sum over terms t:  c_t * (I_t . k + i_t) * (O_t . k + o_t)

with k the units kept per group: one multiplication per layer, exact in float64 (all integers <
2^53).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.search.space import Counts
from stages.trace import ChannelGraph

Matrix = NDArray[np.float64]


class Cost(Protocol):
    """What a budget is expressed in: never decreases when a group keeps more units."""

    @property
    def metric(self) -> str: ...

    def of(self, counts: Counts) -> float:
        """Cost of one candidate; `counts` (G,) int64."""
        ...

    def each(self, counts: Counts) -> NDArray[np.float64]:
        """Costs (B,) of candidates (B, G)."""
        ...

    def deltas(self, counts: Counts, steps: Counts) -> NDArray[np.float64]:
        """Change in cost, (G,), when group g alone goes from `counts[g]` to `counts[g] +
        steps[g]`.
        """
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
        return float(self.each(counts[None])[0])

    def each(self, counts: Counts) -> NDArray[np.float64]:
        into, out = (
            counts @ self.inputs.T + self.input_base,
            counts @ self.outputs.T + self.output_base,
        )
        return (into * out) @ self.factor

    def deltas(self, counts: Counts, steps: Counts) -> NDArray[np.float64]:
        wide_in = self.inputs @ counts + self.input_base
        wide_out = self.outputs @ counts + self.output_base
        linear = (self.factor * wide_out) @ self.inputs + (self.factor * wide_in) @ self.outputs
        return steps * linear + steps * steps * (self.factor @ (self.inputs * self.outputs))

    @classmethod
    def macs(cls, graph: ChannelGraph, ids: Sequence[str]) -> ProductCost:
        """MACs of one image; `ids` are the groups that `counts` speaks of, all others stay
        whole.
        """
        weighted = [
            (layer.weight, layer.positions)
            for layer in graph.layers
            if layer.weight and layer.positions
        ]
        return cls._build(
            "macs", graph, ids, weighted, sum(layer.fixed_macs for layer in graph.layers)
        )

    @classmethod
    def params(cls, graph: ChannelGraph, ids: Sequence[str]) -> ProductCost:
        """Trainable parameters, each counted once however often it is used."""
        names = dict.fromkeys(
            graph.aliases.get(name, name) for layer in graph.layers for name in layer.parameters
        )
        return cls._build("params", graph, ids, [(name, 1) for name in names], 0)

    @classmethod
    def _build(
        cls,
        metric: str,
        graph: ChannelGraph,
        ids: Sequence[str],
        weighted: Iterable[tuple[str, int]],
        constant: int,
    ) -> ProductCost:
        """One term a parameter: factor x (elements along the first cut dim) x (elements along
        the second).
        """
        shares = slices_per_unit(graph, ids)
        rows: list[tuple[float, NDArray[np.float64], float, NDArray[np.float64], float]] = []
        nothing = np.zeros(len(ids))
        for name, times in weighted:
            shape = graph.parameters[name]
            cut = sorted(shares.get(name, {}))
            if len(cut) > 2:
                raise ValueError(f"{name}: cut along {len(cut)} dimensions")
            widths = []
            for dim in cut:
                share = shares[name][dim]
                whole = sum(share[g] * graph[ids[g]].size for g in np.flatnonzero(share).tolist())
                widths.append((share, float(shape[dim] - whole)))
            widths += [(nothing, 1.0)] * (2 - len(cut))
            fixed = float(np.prod([float(n) for dim, n in enumerate(shape) if dim not in cut]))
            rows.append((times * fixed, *widths[0], *widths[1]))
        rows.append((float(constant), nothing, 1.0, nothing, 1.0))
        factor, outputs, output_base, inputs, input_base = (
            np.array(column) for column in zip(*rows, strict=True)
        )
        return cls(metric, factor, inputs, outputs, input_base, output_base)


def slices_per_unit(
    graph: ChannelGraph, ids: Sequence[str]
) -> dict[str, dict[int, NDArray[np.float64]]]:
    """{parameter: {dim: (G,) slices of it along dim that one unit of each group owns}}."""
    found: dict[str, dict[int, NDArray[np.float64]]] = {}
    for index, group_id in enumerate(ids):
        group = graph[group_id]
        for member in group.members:
            dims = found.setdefault(member.parameter, {})
            dims.setdefault(member.dim, np.zeros(len(ids)))[index] += (
                len(member.indices) // group.size
            )
    return found

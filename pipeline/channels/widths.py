"""Lengths of tensor dimensions, and widths of layers, as sums of the units kept in each group.

Everything that counts channels, weights or multiplications starts here. With k (G,) the units kept
in groups `ids`, a dimension that they cut is as long as

    length(k) = per_unit . k + fixed

where `fixed` slices belong to no unit of these groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pipeline.channels.counts import Array, Counts
from pipeline.channels.dropping import Dropping
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.layer_cost import Extent, LayerCost


class Length(NamedTuple):
    """Of one dimension: slices (G,) that one unit of each group owns, and how many no unit owns."""

    per_unit: Array
    fixed: float

    def of(self, counts: Counts) -> int:
        """At these counts (G,)."""
        return int(self.per_unit @ counts + self.fixed)


class Lengths:
    """Of all dimensions of all parameters of a graph, for counts of the groups `ids`; other groups
    stay whole.
    """

    def __init__(self, graph: ChannelGraph, ids: Sequence[str]) -> None:
        self._shapes = graph.parameters
        self._index = {group: index for index, group in enumerate(ids)}
        self._sizes = np.array([graph[group].size for group in ids], dtype=np.float64)
        self._cut: dict[str, dict[int, Array]] = {}
        for (name, dim), tables in graph.slices_along.items():
            mine = [table for table in tables if table.group in self._index]
            for table in mine:
                dims = self._cut.setdefault(name, {})
                per_unit = dims.setdefault(dim, np.zeros(len(ids)))
                per_unit[self._index[table.group]] += table.per_unit

    def cut_dims(self, parameter: str) -> list[int]:
        """The dimensions that change with the counts, ascending."""
        return sorted(self._cut.get(parameter, ()))

    def along(self, parameter: str, dim: int) -> Length:
        """Length of one dimension."""
        whole = self._shapes[parameter][dim]
        per_unit = self._cut.get(parameter, {}).get(dim)
        if per_unit is None:
            return self.constant(whole)
        return Length(per_unit, float(whole - per_unit @ self._sizes))

    def following(self, extent: Extent) -> Length:
        """Length of what is no dimension of a parameter."""
        per_unit = np.zeros(len(self._index))
        for group, share in extent.follows:
            if group in self._index:
                per_unit[self._index[group]] += share
        return Length(per_unit, float(extent.length - per_unit @ self._sizes))

    def constant(self, length: float) -> Length:
        """A length that no count changes."""
        return Length(np.zeros(len(self._index)), float(length))


@dataclass(frozen=True)
class LayerWidths:
    """Output and input width of every weighted layer.

    Attributes:
        names, kinds: (T,) of the layers; a kind is "dense", "pointwise", "depthwise", "grouped" or
            "linear".
        out, into: (T, G) channels that one unit of a group adds.
        out_fixed, into_fixed: (T,) channels that no group adds.
        pixels: (T,) positions at which the weight is applied.
        rest: (T,) product of the weight's other dimensions.
        dropping: which layers go with a branch.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    out: Array
    into: Array
    out_fixed: Array
    into_fixed: Array
    pixels: Array
    rest: Array
    dropping: Dropping = field(default_factory=Dropping)

    @classmethod
    def of(cls, graph: ChannelGraph, ids: Sequence[str]) -> LayerWidths:
        """For counts of the groups `ids`; others stay whole."""
        lengths = Lengths(graph, ids)
        layers = weighted_layers(graph)
        rows: list[tuple[Any, ...]] = []
        for layer in layers:
            shape = graph.parameters[layer.weight]
            out = lengths.along(layer.weight, layer.out_dim)
            into = lengths.along(layer.weight, layer.in_dim)
            rest = float(np.prod(shape)) / (shape[layer.out_dim] * shape[layer.in_dim])
            rows.append(
                (out.per_unit, into.per_unit, out.fixed, into.fixed, float(layer.positions), rest)
            )
        columns: Any = (np.array(column) for column in zip(*rows, strict=True))
        kinds = tuple(_kind(graph.parameters[layer.weight], layer) for layer in layers)
        names = tuple(layer.name for layer in layers)
        dropping = Dropping.of(graph.removable, graph.whole_branches, ids, names)
        return replace(cls(names, kinds, *columns), dropping=dropping)


def weighted_layers(graph: ChannelGraph) -> list[LayerCost]:
    """The layers whose whole weight is multiplied, in model order."""
    return [layer for layer in graph.layers if layer.weight and layer.positions]


def _kind(shape: tuple[int, ...], layer: LayerCost) -> str:
    if len(shape) == 2:
        return "linear"
    if layer.groups > 1:
        return "depthwise" if shape[layer.in_dim] == 1 else "grouped"
    return "pointwise" if all(size == 1 for size in shape[2:]) else "dense"

"""MACs and parameters, exact, for any number of units kept in each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from pipeline.channels.graph import ChannelGraph, LayerCost

Kept = Mapping[str, int]


@dataclass(frozen=True)
class LayerRow:
    """One layer: multiply-accumulates for one sample, parameters, channels out and in (0 where
    neither applies).
    """

    name: str
    type: str
    macs: int
    params: int
    out_channels: int
    in_channels: int


class CostModel:
    """Counts from shapes alone: no tensor is touched, a query costs microseconds to a millisecond.

    `kept` is {group id: units that stay}; a group that is not named keeps all. MACs are those of
    convolutions, linear layers and matrix products for one sample, half of what
    `torch.utils.flop_counter` calls flops.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self._sizes = {group.id: group.size for group in graph.groups}
        self._shares: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for group in graph.prunable:
            for name, dim, indices in group.members:
                self._shares.setdefault((name, dim), []).append(
                    (group.id, len(indices) // group.size)
                )
        counted = {name for layer in graph.layers for name in layer.parameters}
        self._names = [name for name in graph.parameters if name in counted]

    def macs(self, kept: Kept | None = None) -> int:
        """Multiply-accumulates for one sample."""
        return sum(self._macs(layer, kept or {}) for layer in self.graph.layers)

    def params(self, kept: Kept | None = None) -> int:
        """Elements of all parameters; buffers do not count."""
        return sum(prod(self.shape(name, kept or {})) for name in self._names)

    def layers(self, kept: Kept | None = None) -> list[LayerRow]:
        """One row a layer, in model order; the rows add up to `macs` and `params`."""
        return [self._row(layer, kept or {}) for layer in self.graph.layers]

    def shape(self, name: str, kept: Kept) -> tuple[int, ...]:
        """Shape of a parameter or buffer after the cut."""
        shape = list(self.graph.parameters[name])
        for dim in range(len(shape)):
            for group, share in self._shares.get((name, dim), ()):
                if group in kept:
                    shape[dim] -= share * (self._sizes[group] - kept[group])
        return tuple(shape)

    def _macs(self, layer: LayerCost, kept: Kept) -> int:
        applied = layer.positions * prod(self.shape(layer.weight, kept)) if layer.weight else 0
        return applied + layer.fixed_macs

    def _row(self, layer: LayerCost, kept: Kept) -> LayerRow:
        params = sum(prod(self.shape(name, kept)) for name in layer.parameters)
        leaving = arriving = 0
        if layer.weight:
            leaving, arriving = self._channels(layer, self.shape(layer.weight, kept))
        elif layer.parameters:
            leaving = arriving = (
                self.shape(layer.parameters[0], kept)[0]
                if self.graph.parameters[layer.parameters[0]]
                else 0
            )
        return LayerRow(layer.name, layer.type, self._macs(layer, kept), params, leaving, arriving)

    def _channels(self, layer: LayerCost, shape: tuple[int, ...]) -> tuple[int, int]:
        """(out, in) channels of a weight; a depthwise layer loses groups, another grouped one
        keeps them.
        """
        out, into = shape[layer.out_dim], shape[layer.in_dim]
        if layer.groups == 1:
            return out, into
        full = self.graph.parameters[layer.weight]
        if layer.out_dim == 1:  # transposed: (in, out / groups)
            depthwise = full[0] == layer.groups
            return out * (into if depthwise else layer.groups), into
        depthwise = full[1] == 1
        return out, out * layer.groups // full[0] if depthwise else into * layer.groups

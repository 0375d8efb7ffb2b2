"""MACs and parameters, exact, for any number of units kept in each group.

A parameter's elements are a constant times its input width times its output width, and both widths
are sums of group counts (see `pipeline.channels.widths`). So a whole network's cost is

    cost(k) = sum over terms t:  c_t * (I_t . k + i_t) * (O_t . k + o_t)

with k the units kept per group: one multiplication per layer, quick enough for thousands of
candidates a second, and exact in float64 (all integers < 2^53). Terms of branches of which no unit
is kept are zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.channels.branch import Branch
from pipeline.channels.counts import Array, Counts
from pipeline.channels.dropping import Dropping
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.layer_cost import LayerCost, Product
from pipeline.channels.widths import Length, Lengths, weighted_layers

Kept = Mapping[str, int]
"""{group id: units that stay}; a group that is not named keeps all."""


@dataclass(frozen=True)
class ProductCost:
    """The sum of products in the module docstring.

    Attributes:
        metric: "macs" or "params".
        factor: (T,) constants c.
        inputs, outputs: (T, G) matrices I and O.
        input_fixed, output_fixed: (T,) widths that no group contributes to, i and o.
        dropping: which terms go with a branch.
    """

    metric: str
    factor: Array
    inputs: Array
    outputs: Array
    input_fixed: Array
    output_fixed: Array
    dropping: Dropping = field(default_factory=Dropping)

    @classmethod
    def macs(cls, graph: ChannelGraph, ids: Sequence[str]) -> ProductCost:
        """MACs of one image; `ids` are the groups that `counts` speaks of, all others stay whole.

        One term a weighted layer, in model order, then one a product, in the order of
        `products`.
        """
        weights = [(layer.weight, layer.positions) for layer in weighted_layers(graph)]
        others = [(graph.layers[position].name, item) for position, item in products(graph)]
        return cls._build("macs", graph, ids, weights, others)

    @classmethod
    def params(cls, graph: ChannelGraph, ids: Sequence[str]) -> ProductCost:
        """Parameters, each counted once however often it is used; buffers do not count.

        One term a parameter, in the order of `parameter_names`.
        """
        return cls._build("params", graph, ids, [(name, 1) for name in parameter_names(graph)])

    @classmethod
    def _build(
        cls,
        metric: str,
        graph: ChannelGraph,
        ids: Sequence[str],
        tensors: Sequence[tuple[str, int]],
        others: Sequence[tuple[str, Product]] = (),
    ) -> ProductCost:
        """One term a tensor, how often it counts x its elements; one for each of `others`, by the
        name of its layer; and an empty one, so that a network without any costs nothing.
        """
        lengths, others = Lengths(graph, ids), [*others, ("", Product(0))]
        rows = [(times, *_elements(graph, lengths, name)) for name, times in tensors]
        rows += [_extents(lengths, product) for _, product in others]
        names = [name for name, _ in (*tensors, *others)]
        terms = [(times * rest, *out, *into) for times, rest, out, into in rows]
        factor, outputs, output_fixed, inputs, input_fixed = (
            np.array(column) for column in zip(*terms, strict=True)
        )
        dropping = Dropping.of(graph.removable, graph.whole_branches, ids, names)
        return cls(metric, factor, inputs, outputs, input_fixed, output_fixed, dropping)

    def of(self, counts: Counts) -> float:
        return float(self.each(counts[None])[0])

    def each(self, counts: Counts) -> Array:
        into, out = self._widths(counts)
        return (into * out * self.dropping.left(counts)) @ self.factor

    def terms(self, counts: Counts, drop: Collection[str] = ()) -> Array:
        """What each term adds, (T,), for counts (G,) without the branches `drop`."""
        into, out = self._widths(counts)
        return into * out * self.factor * self.dropping.left(counts, drop)

    def deltas(self, counts: Counts, steps: Counts) -> Array:
        into, out = self._widths(counts)
        # a branch that has gone does not come back by one of its groups
        factor = self.factor * self.dropping.left(counts)
        # (a + sx)(b + sy) - ab = s (ay + bx) + s² xy, for every group x, y that moves alone
        linear = (factor * out) @ self.inputs + (factor * into) @ self.outputs
        return steps * linear + steps * steps * (factor @ (self.inputs * self.outputs))

    def _widths(self, counts: Counts) -> tuple[Array, Array]:
        return (
            counts @ self.inputs.T + self.input_fixed,
            counts @ self.outputs.T + self.output_fixed,
        )


def _elements(graph: ChannelGraph, lengths: Lengths, name: str) -> tuple[float, Length, Length]:
    """A tensor's elements as a constant times two lengths."""
    shape, cut = graph.parameters[name], lengths.cut_dims(name)
    if len(cut) > 2:
        raise ValueError(f"{name}: cut along {len(cut)} dimensions")
    rest = float(np.prod([float(size) for dim, size in enumerate(shape) if dim not in cut]))
    along = [lengths.along(name, dim) for dim in cut]
    first, second = [*along, lengths.constant(1), lengths.constant(1)][:2]
    return rest, first, second


def _extents(lengths: Lengths, product: Product) -> tuple[int, float, Length, Length]:
    along = [lengths.following(extent) for extent in product.extents]
    first, second = [*along, lengths.constant(1), lengths.constant(1)][:2]
    return product.times, 1.0, first, second


def products(graph: ChannelGraph) -> list[tuple[int, Product]]:
    """(position of its layer, product) of all layers, in model order."""
    return [
        (position, product)
        for position, layer in enumerate(graph.layers)
        for product in layer.products
    ]


def parameter_names(graph: ChannelGraph) -> list[str]:
    """The parameters of all layers, each once; buffers are none of a layer's."""
    return list(dict.fromkeys(name for layer in graph.layers for name in layer.parameters))


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
    """Costs by group id, for people and files; a search asks `ProductCost`, which this rests on.

    Counts from shapes alone: no tensor is touched. MACs are those of convolutions, linear layers
    and matrix products for one sample, half of what `torch.utils.flop_counter` calls flops.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self._sizes = {group.id: group.size for group in graph.prunable}
        ids = tuple(self._sizes)
        self._lengths = Lengths(graph, ids)
        self._macs = ProductCost.macs(graph, ids)
        self._params = ProductCost.params(graph, ids)
        position = {layer.name: at for at, layer in enumerate(graph.layers)}
        weighted = [position[layer.name] for layer in weighted_layers(graph)]
        others = [at for at, _ in products(graph)]
        self._layer_of_term = np.array([*weighted, *others], dtype=np.int64)

    def macs(self, kept: Kept | None = None, drop: Collection[str] = ()) -> int:
        """Multiply-accumulates for one sample, without the branches `drop`."""
        # exact: every term is a whole number below 2^53
        return int(self._macs.terms(self._counts(kept), drop).sum())

    def params(self, kept: Kept | None = None, drop: Collection[str] = ()) -> int:
        """Elements of all parameters, buffers not counted, without the branches `drop`."""
        return int(self._params.terms(self._counts(kept), drop).sum())

    def layers(self, kept: Kept | None = None, drop: Collection[str] = ()) -> list[LayerRow]:
        """One row a layer that is left, in model order; the rows add up to `macs` and `params`."""
        counts, gone = self._counts(kept), self._gone(kept, drop)
        terms = self._macs.terms(counts, drop)[: len(self._layer_of_term)]
        macs = np.bincount(self._layer_of_term, terms, len(self.graph.layers))
        # the term left over is the empty one
        sizes = self._params.terms(counts, drop)
        elements = dict(zip(parameter_names(self.graph), sizes, strict=False))
        return [
            LayerRow(
                layer.name,
                layer.type,
                int(macs[position]),
                int(sum(elements[name] for name in layer.parameters)),
                *self._channels(layer, counts),
            )
            for position, layer in enumerate(self.graph.layers)
            if not any(branch.holds(layer.name) for branch in gone)
        ]

    def _gone(self, kept: Kept | None, drop: Collection[str]) -> list[Branch]:
        empty = self.graph.dropped(
            {group: () for group, count in (kept or {}).items() if not count}
        )
        return [b for b in self.graph.branches if b.id in drop or b in empty]

    def _counts(self, kept: Kept | None) -> Counts:
        given = kept or {}
        return np.array(
            [given.get(group, size) for group, size in self._sizes.items()], dtype=np.int64
        )

    def _channels(self, layer: LayerCost, counts: Counts) -> tuple[int, int]:
        """(out, in) channels; a depthwise layer loses groups, another grouped one keeps them."""
        if not layer.weight:
            return self._first_dim(layer, counts)
        out = self._lengths.along(layer.weight, layer.out_dim).of(counts)
        into = self._lengths.along(layer.weight, layer.in_dim).of(counts)
        if layer.groups == 1:
            return out, into
        whole = self.graph.parameters[layer.weight]
        if layer.out_dim == 1:  # transposed: (in, out / groups)
            depthwise = whole[0] == layer.groups
            return out * (into if depthwise else layer.groups), into
        depthwise = whole[1] == 1
        return out, out * layer.groups // whole[0] if depthwise else into * layer.groups

    def _first_dim(self, layer: LayerCost, counts: Counts) -> tuple[int, int]:
        """Of a layer that has parameters and multiplies no weight, such as a norm."""
        if not layer.parameters or not self.graph.parameters[layer.parameters[0]]:
            return 0, 0
        channels = self._lengths.along(layer.parameters[0], 0).of(counts)
        return channels, channels

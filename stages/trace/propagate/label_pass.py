"""What the rules see and write to while labels run through a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from torch import fx

from stages.trace.capture.calls import Call, flatten
from stages.trace.capture.inventory import Inventory
from stages.trace.propagate.attributes import Follow, holder, parts, size
from stages.trace.propagate.graph_code import Graphs, Number, numbers, place_in_graph
from stages.trace.propagate.label_values import (
    Activation,
    Argument,
    Bound,
    Opaque,
    Parameter,
    Result,
    Vector,
)
from stages.trace.propagate.labels import Labels
from stages.trace.propagate.readings import Reading
from stages.trace.propagate.zeros import Zeros

Shape = tuple[int, ...]


@dataclass
class Use:
    """What a module multiplies; see `pipeline.channels.layer_cost.LayerCost`.

    `products` pairs a number of multiplications with the labels of up to two extents that it is
    times.
    """

    type: str
    weight: str
    positions: int = 0
    out_dim: int = 0
    in_dim: int = 1
    groups: int = 1
    products: list[tuple[int, tuple[Vector, ...]]] = field(default_factory=list)


@dataclass
class Pass:
    """One walk through the recorded calls.

    `readings` says, for a site, how ambiguous sizes there are read; sites that are not named are
    read as INNER. `problems` says what went wrong at sites that are FIXED, `follows` which
    attributes of the user's modules count channels there. `call` is the call whose rule is running,
    `zeros` tells where silenced units leave zeros in its recording. `counting` is False in the
    second recording of the same model, whose multiplications were counted in the first. `values`
    and `shapes` list, for every recording, those of every call; `passing`, for every site, its
    calls with the values that pass.
    """

    inventory: Inventory
    readings: Mapping[str, Reading]
    problems: Mapping[str, str]
    open_statistics: bool = False
    follows: Mapping[str, Sequence[Follow]] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    uses: dict[str, Use] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    counting: bool = True
    values: list[list[Any]] = field(default_factory=list)
    shapes: list[list[tuple[Shape | None, ...]]] = field(default_factory=list)
    passing: dict[str, list[tuple[Call, Bound, Result]]] = field(default_factory=dict)
    followed: dict[tuple[str, str], Vector] = field(default_factory=dict)
    call: Call = field(init=False)
    zeros: Zeros = field(init=False)

    def __post_init__(self) -> None:
        self.modules, self.buffers = self.inventory.modules, set(self.inventory.buffers)
        self.graphs = Graphs(self.modules)
        self.stored = {name: tuple(t.shape) for name, t in self.inventory.stored.items()}

    @property
    def reading(self) -> Reading:
        """How the site of the current call is read."""
        return self.reading_from(Reading.INNER)

    def reading_from(self, first: Reading) -> Reading:
        """The same, where nothing is settled yet the reading to start from."""
        return self.readings.get(self.call.site, first)

    def why(self, text: str) -> str:
        """Reason for the current call: operator, module path, source line, explanation."""
        return f"{self.call.where}: {text}"

    def fixed(self, shape: Iterable[int], reason: str) -> Activation:
        """An activation without units."""
        return Activation(tuple(shape), None, np.array([self.labels.fixed(reason)], dtype=np.int64))

    def stuck(self, values: Argument, text: str) -> Any:
        """Freeze activations, pin parameters, and return fixed results of the call's shapes."""
        reason = self.why(text)
        for value in flatten(values):
            if isinstance(value, Activation):
                self.labels.freeze(value.vector, reason)
            elif isinstance(value, Parameter):
                self.pin(value, reason)
        return self.results(lambda shape: self.fixed(shape, reason))

    def pin(self, parameter: Parameter, reason: str) -> None:
        """Whatever owns slices of the stored tensors it comes from must stay."""
        for source in parameter.sources:
            self.labels.pin(source.name, reason)

    def results(self, make: Callable[[tuple[int, ...]], Any]) -> Any:
        """`make(shape)` for each tensor result: one value, or a tuple for operators that return
        several.
        """
        made = tuple(Opaque() if shape is None else make(shape) for shape in self.call.shapes)
        return made[0] if len(made) == 1 and not self.call.returns_list else made

    def read(self, parameter: Argument, dim: int, labels: Vector) -> bool:
        """Let `labels` own the slices of `parameter` along its current `dim`; freeze them where
        that is impossible.
        """
        if not isinstance(parameter, Parameter):
            return True
        # a list: `all` of a generator would stop at the first that fails
        read = [self._read(source, dim, labels) for source in parameter.sources]
        return all(read)

    def _read(self, source: Parameter, dim: int, labels: Vector) -> bool:
        if source.is_constant(dim):
            return True
        axis = source.axis(dim)
        if axis is None:
            reason = self.why(f"{source.name} mixes dimensions")
            self.labels.freeze(labels, reason)
            self.labels.pin(source.name, reason)
            return False
        stored, indices = axis
        size = self.stored[source.name][stored]
        self.labels.attach(source.name, stored, size, indices, labels)
        return True

    def owned(self, parameter: Parameter, dim: int) -> Vector | None:
        """Labels of the slices along its current `dim`, new ones where nothing owns them yet.

        None where `dim` mixes stored dimensions.
        """
        return self._slices(parameter, dim, self.labels.owned)

    def rows(self, parameter: Parameter, dim: int) -> Vector:
        """Labels of the output rows of a weight along its current `dim`."""
        labels = self._slices(parameter, dim, self.labels.produce)
        assert labels is not None  # callers check `plain`
        return labels

    def _slices(self, parameter: Parameter, dim: int, own: Callable[..., Vector]) -> Vector | None:
        """Labels of the first source whose slices lie along `dim`; all others are read by them."""
        for source in parameter.sources:
            axis = source.axis(dim)
            if axis is not None:
                size = self.stored[source.name][axis[0]]
                labels = own(source.name, axis[0], size, axis[1])
                return labels if self.read(parameter, dim, labels) else None
        return None

    def owner(self, parameter: Argument, kinds: type | tuple[type, ...]) -> str | None:
        """Path of the module that holds `parameter` (or that makes this call) if it is one of
        `kinds`.
        """
        name = self._holder(parameter) if isinstance(parameter, Parameter) else self.call.module
        return name if isinstance(self.modules.get(name), kinds) else None

    def _holder(self, parameter: Parameter) -> str:
        """The module whose weight it is: a parametrisation is part of the layer that calls."""
        running = self.call.module
        inside = parameter.name.startswith(f"{running}.parametrizations.")
        return running if inside else parameter.name.rpartition(".")[0]

    def width(self, module: str | None, attribute: str, labels: Vector) -> None:
        """A module attribute counts these channels and must follow a cut."""
        if module is not None:
            self.labels.widths.append((module, attribute, len(labels), labels))

    def argument(self, owner: str | None, name: str, labels: Vector) -> None:
        """An argument of this call counts these channels: an attribute of the owner, or a number in
        the graph of generated code.
        """
        if owner is not None:
            self.width(owner, name, labels)
        elif node := self.graphs.node(self.call):
            self._in_graph(node, [Number(name, None, labels)])

    def follow_graph(self, bound: Bound, result: Result) -> None:
        """Let the numbers of this call that stand in generated code follow what they count."""
        if node := self.graphs.node(self.call):
            found = parts(self.call, bound, result, self.reading)
            self._in_graph(node, numbers(self.call, bound, result, found))

    def _in_graph(self, node: fx.Node, counts: Iterable[Number]) -> None:
        for number in counts:
            if place := place_in_graph(node, self.call, number):
                self.width(self.call.module, place, number.labels)

    def follow(self, bound: Bound, result: Result) -> None:
        """Let the attributes that are said to count channels of this call follow them.

        One that is read in several calls counts the same units in all of them.
        """
        for guess in self.follows.get(self.call.site, ()):
            path = holder(self.call.module, guess.depth)
            labels = parts(self.call, bound, result, self.reading).get(guess.part)
            if path is None or labels is None:
                continue
            if size(self.modules.get(path), guess.attribute) == len(labels):
                key = path, guess.attribute
                self.labels.tie(self.followed.setdefault(key, labels), labels)
                self.width(*key, labels)

    def count(
        self,
        weight: Parameter,
        type_: str,
        positions: int,
        extents: tuple[Vector, Vector],
        **layout: int,
    ) -> None:
        """Add `positions` applications of a weight; `extents` label its first two dimensions."""
        if not self.counting:
            return
        use = self._use_of(weight, type_, **layout)
        if self._whole(weight):
            use.positions += positions
            return
        along = tuple(vector for vector in extents if len(vector) > 1)
        rest = prod(weight.shape) // prod(map(len, along))
        use.products.append((positions * rest, along))

    def count_product(self, times: int, *extents: Vector, weight: Parameter | None = None) -> None:
        """Add `times` the lengths of `extents`, to the row of `weight` or of the running module.

        Extents that a cut shortens are given as labels, at most two; all others belong in `times`.
        """
        if not self.counting:
            return
        if len(extents) > 2:
            raise ValueError(f"{self.call.where}: a count that follows {len(extents)} widths")
        key = f"{self.call.module or self.call.name}:"
        use = (
            self._use_of(weight, "")
            if weight
            else self.uses.setdefault(key, Use(self.call.name, ""))
        )
        use.products.append((times, extents))

    def _use_of(self, weight: Parameter, type_: str, **layout: Any) -> Use:
        module = self.modules.get(self._holder(weight))
        whole = module is None or module is self.modules[""]
        kind = type_ if whole else type(module).__name__
        return self.uses.setdefault(weight.name, Use(kind, weight.name, **layout))

    def _whole(self, weight: Parameter) -> bool:
        """Whether each element of the stored tensor is there once, in whatever order."""
        stored = self.stored[weight.name]
        if weight.coordinates is None or prod(weight.shape) != prod(stored):
            return weight.coordinates is None
        for dim in range(min(len(weight.shape), 2)):
            axis = weight.axis(dim)
            if axis is None or axis[1] is None or len(np.unique(axis[1])) != stored[axis[0]]:
                return False
        return True

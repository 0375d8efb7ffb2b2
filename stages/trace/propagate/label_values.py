"""What flows along the edges while labels are computed: activations, parameters, everything else.

A unit label is an integer > 0. A label < 0 stands for channels that must all stay and leads to the
reason (`Labels.reason`). 0 is "no label yet" and occurs only inside the tables of `Labels`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Vector = NDArray[np.int64]
Move = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Activation:
    """A tensor whose channels lie along at most one dimension.

    `vector[i]` labels every element at index i of `dim`. With `dim=None` the vector has one entry
    that labels the whole tensor: a fixed tensor, or one whose channels are all the same unit.
    """

    shape: tuple[int, ...]
    dim: int | None
    vector: Vector

    def __post_init__(self) -> None:
        if self.dim is None or not len(self.vector):  # a slice of no channels keeps its dimension
            return
        # one form for whatever cannot be cut along a dimension: rules ask for `dim is None` alone
        if len(self.vector) == 1 or bool((self.vector <= 0).all()):
            object.__setattr__(self, "dim", None)
            object.__setattr__(self, "vector", self.vector[:1])

    @property
    def is_fixed(self) -> bool:
        """True when no element belongs to a unit."""
        return bool((self.vector <= 0).all())

    def along(self, dim: int) -> Vector | None:
        """Labels along `dim`, or None when the channels lie along another dimension."""
        if self.dim == dim:
            return self.vector
        return np.repeat(self.vector, self.shape[dim]) if self.dim is None else None

    def with_shape(self, shape: tuple[int, ...], dim: int | None) -> Activation:
        """The same labels on another shape; `dim` says where they lie there."""
        return Activation(tuple(shape), dim if self.dim is not None else None, self.vector)

    def expanded(self) -> torch.Tensor:
        """Labels as an int64 tensor of the activation's shape, stride 0 but along the channels."""
        labels = torch.from_numpy(np.ascontiguousarray(self.vector))
        if self.dim is not None:
            ndim = len(self.shape)
            labels = labels.reshape([len(labels) if d == self.dim else 1 for d in range(ndim)])
        return labels.expand(self.shape) if self.shape else labels[0]


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer, possibly moved about (viewed, permuted, sliced) since it was read.

    `coordinates[d]` holds, for every element as it is now, its index along dimension d of the
    stored tensor; None while the tensor is as stored. `computed` marks element-wise functions of
    it, such as `scale.exp()`; `buffer` tells the two kinds of stored tensor apart. A value computed
    from several stored tensors is one of them, and lists the `others`, broadcast to its shape.
    """

    name: str
    shape: tuple[int, ...]
    coordinates: tuple[torch.Tensor, ...] | None = None
    computed: bool = False
    buffer: bool = False
    others: tuple[Parameter, ...] = ()

    @property
    def sources(self) -> tuple[Parameter, ...]:
        """All stored tensors it comes from; what each says of itself holds for that one alone."""
        return (self, *self.others)

    @cached_property
    def varying(self) -> tuple[tuple[int, ...], ...]:
        """For each stored dimension, the dimensions along which its index changes."""
        if self.coordinates is None:
            return tuple((dim,) for dim in range(len(self.shape)))
        return tuple(tuple(varying_dims(coordinate)) for coordinate in self.coordinates)

    @cached_property
    def axes(self) -> tuple[Any, ...]:
        """A key that is the same for sources whose slices lie the same way."""
        found = [self.axis(dim) for dim in range(len(self.shape))]
        mixed = any(len(dims) > 1 for dims in self.varying)
        if mixed:
            return (id(self),)  # what mixes dimensions lies like nothing else
        return tuple(
            None if axis is None else (axis[0], None if axis[1] is None else axis[1].tobytes())
            for axis in found
        )

    @property
    def extent(self) -> int:
        """Elements that belong to slices of their own."""
        return prod(self.shape[dim] for dim in {dim for dims in self.varying for dim in dims})

    def is_constant(self, dim: int) -> bool:
        """Whether all slices along `dim` are the same ones: it was broadcast, or reduced."""
        return self.coordinates is not None and all(dim not in dims for dims in self.varying)

    def moved_by(
        self, move: Move, shape: tuple[int, ...], *, computed: bool | None = None
    ) -> Parameter:
        """`move` applied to the coordinates, `shape` is that of a result without any."""
        coordinates = tuple(move(coordinate) for coordinate in self.moved())
        return Parameter(
            self.name,
            tuple(coordinates[0].shape) if coordinates else shape,
            coordinates or None,
            self.computed if computed is None else computed,
            self.buffer,
            tuple(other.moved_by(move, shape) for other in self.others),
        )

    def spread(self, shape: tuple[int, ...]) -> Parameter:
        """This one stored tensor, broadcast to `shape`."""
        if self.shape == shape:
            return replace(self, others=())
        coordinates = tuple(coordinate.expand(shape) for coordinate in self.moved())
        return Parameter(self.name, shape, coordinates, self.computed, self.buffer)

    def moved(self) -> tuple[torch.Tensor, ...]:
        """`coordinates`, made explicit where the tensor is as stored."""
        if self.coordinates is not None:
            return self.coordinates
        ndim = len(self.shape)
        return tuple(
            torch.arange(size)
            .reshape([-1 if d == k else 1 for d in range(ndim)])
            .expand(self.shape)
            for k, size in enumerate(self.shape)
        )

    def axis(self, dim: int) -> tuple[int, Vector | None] | None:
        """(stored dimension, index along it for each position of `dim`), or None if `dim` mixes
        dimensions. Without indices, positions are as stored.
        """
        if self.coordinates is None:
            return dim % len(self.shape), None
        for stored, coordinate in enumerate(self.coordinates):
            if self.varying[stored] == (dim,):
                return stored, along(coordinate, dim)
        return None


@dataclass(frozen=True)
class Opaque:
    """A value without channels: a number, a shape, a generator."""


Value = Activation | Parameter | Opaque
"""What one recorded tensor stands for while labels run."""
Result = Value | tuple[Value, ...]
"""What a rule returns: one value, or a tuple for operators whose result is read through getitem."""
Argument = Any
"""A `Value`, a list of them, or a plain number, string, dtype … as forward gave it."""


class Bound(dict[str, Argument]):
    """The arguments of one operator call by the names of its schema, defaults filled in.

    For `torch.cat([a, b], 1)` it holds {"tensors": [Activation, Activation], "dim": 1}.
    """

    @property
    def first(self) -> Argument:
        """The first argument, whatever the schema calls it: "self", "input", "tensors" …"""
        return next(iter(self.values()))


def varying_dims(labels: torch.Tensor) -> list[int]:
    """Dimensions along which an integer tensor is not constant."""
    found = []
    for dim, (size, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
        if size > 1 and stride != 0:  # a stride of 0 is constant without a look at its elements
            rest = labels.narrow(dim, 1, size - 1)
            # stops at the first that differs
            if not torch.equal(rest, labels.narrow(dim, 0, 1).expand_as(rest)):
                found.append(dim)
    return found


def along(labels: torch.Tensor, dim: int) -> Vector:
    """The values along `dim` at index 0 of every other dimension."""
    for other in reversed(range(labels.dim())):
        if other != dim:
            labels = labels.select(other, 0)
    return labels.contiguous().numpy()

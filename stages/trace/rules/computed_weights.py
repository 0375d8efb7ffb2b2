"""Weights that forward computes from stored tensors: `w1 + w2`, masks, weight norm, spectral norm.

A result keeps, for each tensor it comes from, which slice of it every element belongs to. For
`w = g * v / norm(v)` of 4 rows, g (4, 1, 1, 1) and v (4, 3, 3, 3):

    v          rows 0 1 2 3, columns 0 1 2
    norm(v)    rows 0 1 2 3                   summed over the columns
    g          rows 0 1 2 3
    w          rows 0 1 2 3 of v and of g, columns 0 1 2 of v

A silenced slice adds nothing to a sum, so that what is summed over may still be cut. Means,
variances and maxima also depend on how many there are, or on what a zero is next to: such slices
stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

import torch

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Bound, Parameter, Result
from stages.trace.rules.torch_count import torch_count

_SUMS = frozenset({"sum", "norm", "linalg_vector_norm", "nansum", "count_nonzero"})
_NORMALISED = "depends on all slices of {}; pipeline.models.fold_standardised_weights computes it"


def combined(parameters: Sequence[Parameter], shape: tuple[int, ...]) -> Parameter:
    """An element-wise function of stored tensors, each broadcast to `shape`."""
    sources: dict[object, Parameter] = {}
    for source in (source for value in parameters for source in value.sources):
        if any(source.varying):
            spread = source.spread(shape)
            sources.setdefault((spread.name, spread.axes), spread)
    # the first names the weight in the cost table: a parameter if there is one, and the largest
    found = sorted(sources.values(), key=lambda source: (source.buffer, -source.extent))
    if not found:  # numbers
        first = parameters[0]
        return Parameter(first.name, shape, _nowhere(first, shape), True, first.buffer)
    main = found[0]
    return Parameter(main.name, shape, main.coordinates, True, main.buffer, tuple(found[1:]))


def reduced(state: Pass, value: Parameter, dims: Iterable[int], keep: bool, sums: bool) -> Result:
    """A sum over `dims`, or a statistic, whose slices stay."""
    # last first: `select` shifts all behind
    dims = sorted({dim % len(value.shape) for dim in dims}, reverse=True)
    if not sums:
        stays(state, value, dims)

    def first(coordinate: torch.Tensor) -> torch.Tensor:
        for dim in dims:
            coordinate = coordinate.narrow(dim, 0, 1) if keep else coordinate.select(dim, 0)
        return coordinate

    return state.results(lambda shape: value.moved_by(first, shape, computed=True))


def is_sum(state: Pass, bound: Bound) -> bool:
    """Whether a zero more or less is the same: sums, and norms that are roots of sums."""
    order = bound.get("p", bound.get("ord", 2))
    order = 2 if order is None else order
    # norms of order inf are maxima, those of a negative order divide by zeros
    known = isinstance(order, (int, float)) and 0 < order < inf
    return state.call.name in _SUMS and known


def stays(state: Pass, value: Parameter, dims: Iterable[int]) -> None:
    """Keep all slices of stored tensors that lie along these dimensions."""
    along = set(dims)
    for source in value.sources:
        for stored, varying in enumerate(source.varying):
            if along & set(varying):
                reason = state.why(_NORMALISED.format(source.name))
                state.labels.pin(source.name, reason, stored)


def standardised(state: Pass, bound: Bound) -> Result:
    """Batch or instance norm of a weight laid out as (1, rows, all else)."""
    value, ndim = bound["input"], len(bound["input"].shape)
    instance = state.call.name == "instance_norm"
    if bound.get("use_input_stats" if instance else "training", True) or not bound["running_mean"]:
        stays(state, value, range(2, ndim) if instance else [0, *range(2, ndim)])
    operands = [value]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(bound.get(name), Parameter):
            shape = (1, -1, *[1] * (ndim - 2))
            operands.append(bound[name].moved_by(lambda c, shape=shape: c.reshape(shape), ()))
        elif bound.get(name) is not None:
            return state.stuck(bound, "weights standardised by what forward computed")
    return combined(operands, value.shape)


def weight_norm(state: Pass, bound: Bound) -> Result:
    """g * v / norm(v), the norm over all dimensions but one, or over all."""
    direction, length, dim = bound["v"], bound["g"], bound["dim"]
    if not isinstance(direction, Parameter) or not isinstance(length, Parameter):
        return state.stuck(bound, "norm of a weight that forward computed")
    # dim is -1 for one norm of the whole tensor, which is not zero while anything is left
    if dim >= 0:
        divides(state, _along(direction, dim))
    return combined([direction, length], direction.shape)


def product(state: Pass, bound: Bound) -> Result:
    """Of a matrix or vector and a vector: a sum over the last dimension; or of two matrices."""
    left, right = list(bound.values())[:2]
    if not isinstance(left, Parameter) or not isinstance(right, Parameter):
        state.count_product(torch_count(state.call.target, bound))
        return state.stuck(bound, "multiplies activations")
    if len(right.shape) == 2:
        return _low_rank(state, left, right)
    labels = state.owned(right, 0)
    if labels is None or not state.read(left, len(left.shape) - 1, labels):
        return state.stuck([left, right], "a mixed dimension is summed over")
    shape = state.call.shapes[0] or ()
    parts = [
        value.moved_by(lambda coordinate: coordinate.select(-1, 0), shape)
        for value in (left, right)
    ]
    return combined(parts, shape)


def _low_rank(state: Pass, left: Parameter, right: Parameter) -> Result:
    """Matrix times matrix: rows of one, columns of the other; what is summed over stays."""
    shape = state.call.shapes[0] or ()
    rows, columns = state.owned(left, 0), state.owned(right, 1)
    if len(left.shape) != 2 or rows is None or columns is None:
        return state.stuck([left, right], "a mixed dimension is multiplied")
    stays(state, left, [1])
    stays(state, right, [0])
    state.count_product(left.shape[1], rows, columns)
    parts = [
        left.moved_by(lambda coordinate: coordinate[:, :1].expand(shape), shape),
        right.moved_by(lambda coordinate: coordinate[:1].expand(shape), shape),
    ]
    return combined(parts, shape)


def divides(state: Pass, divisor: Parameter) -> None:
    """Slices of stored tensors that would be divided by zero are not silenced."""
    for source in divisor.sources:
        if not source.buffer:  # buffers are never silenced
            for stored, varying in enumerate(source.varying):
                if varying:
                    state.labels.divisors.add((source.name, stored))


def _along(value: Parameter, dim: int) -> Parameter:
    """What is left of a parameter that is summed over all dimensions but one."""

    def first(coordinate: torch.Tensor) -> torch.Tensor:
        for other in reversed(range(coordinate.dim())):
            if other != dim % coordinate.dim():
                coordinate = coordinate.select(other, 0)
        return coordinate

    return value.moved_by(first, ())


def _nowhere(value: Parameter, shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    nothing = torch.zeros(1, dtype=torch.int64).reshape([1] * len(shape)).expand(shape)
    return (nothing,) * max(len(value.coordinates or ()), 1)


RULES = {"_weight_norm": weight_norm, **dict.fromkeys(("mv", "dot", "vdot"), product)}

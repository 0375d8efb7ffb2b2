"""Taking tensors apart along the channels and putting them together.

Pieces are taken to keep their relative sizes after a cut, so equal positions of blocks are tied, or
where points are given to lose units each for itself. A check of the cut finds the sites where that
is not so (see `propagate.readings`).
"""

from __future__ import annotations

from math import gcd

import numpy as np

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import (
    Activation,
    Argument,
    Bound,
    Parameter,
    Result,
    Vector,
)
from stages.trace.propagate.readings import Reading
from stages.trace.rules.views import moved, same_op

Shape = tuple[int, ...]
_GIVEN = ("split_sizes", "split_size", "indices")


def _blocks(state: Pass, vector: Vector, size: int) -> Vector:
    """Tie equal positions of consecutive blocks of `size` channels; returns the vector in terms
    of the first block.
    """
    blocks = vector.reshape(-1, size)
    state.labels.tie(blocks, blocks[:1])
    return np.tile(blocks[0], len(blocks))


def _cut_points(
    state: Pass, value: Activation, points: list[int], *, given: bool = True
) -> Activation:
    """The activation tied so that cutting at `points` stays possible; points that are `given` one
    by one may follow one by one.
    """
    # the largest blocks that all points, and the end, lie between
    block = gcd(*points, len(value.vector))
    if block == len(value.vector):
        return value
    if given:
        state.labels.point_sites[state.call.site] = None
        if state.reading_from(Reading.PIECES) is Reading.PIECES:
            state.labels.pieces += np.split(value.vector, points)  # their shares may differ
            return value
    return Activation(value.shape, value.dim, _blocks(state, value.vector, block))


def _hits_channels(value: Argument, dim: int) -> bool:
    return (
        isinstance(value, Activation)
        and value.dim is not None
        and value.dim == dim % len(value.shape)
    )


def slice_(state: Pass, bound: Bound) -> Result:
    """x[:, start:end:step]."""
    value, dim, step = bound["self"], bound.get("dim", 0), bound.get("step", 1)
    if "length" in bound:  # narrow(dim, start, length)
        start, end = bound["start"], bound["start"] + bound["length"]
    else:
        start, end = bound.get("start"), bound.get("end")
    if not _hits_channels(value, dim):
        return same_op(state, bound)
    size = len(value.vector)
    start, end, step = slice(start, end, step).indices(size)
    if (start, end, step) == (0, size, 1):
        return value
    if step > 1 and start < step and end == size and size % step == 0:
        pairs = value.vector.reshape(-1, step)
        # a unit is a whole run of `step` channels, or all behind it would change places
        state.labels.tie(pairs, pairs[:, :1])
        return Activation(state.call.shapes[0] or (), value.dim, pairs[:, start].copy())
    if step != 1:
        return state.stuck([value], "takes channels by position")
    tied = _cut_points(state, value, [start, end])
    return Activation(state.call.shapes[0] or (), value.dim, tied.vector[start:end])


def select(state: Pass, bound: Bound) -> Result:
    """x[:, i]."""
    value = bound["self"]
    single = isinstance(value, Activation) and value.dim is None and value.vector[0] > 0
    if _hits_channels(value, bound.get("dim", 0)) or single:
        return state.stuck([value], "takes one channel by position")
    return same_op(state, bound)


def split(state: Pass, bound: Bound) -> Result:
    """chunk, split, split_with_sizes, tensor_split, unbind: along the channels, or beside them."""
    value, dim = bound["self"], bound.get("dim", 0)
    shapes = [shape for shape in state.call.shapes if shape is not None]
    if isinstance(value, Parameter):
        return _split_parameter(state, value, dim, shapes)
    if not _hits_channels(value, dim):
        if state.call.name == "unbind":
            shift = value.dim is not None and value.dim > dim % len(value.shape)
            return tuple(value.with_shape(shape, (value.dim or 0) - shift) for shape in shapes)
        return tuple(value.with_shape(shape, value.dim) for shape in shapes)
    dim = dim % len(value.shape)
    sizes = [shape[dim] for shape in shapes] if state.call.name != "unbind" else [1] * len(shapes)
    points = [int(point) for point in np.cumsum(sizes)[:-1]]
    by_count = state.call.name in ("chunk", "tensor_split") and "indices" not in bound
    # `chunk` that does not divide evenly hands out other pieces as soon as the width changes
    if state.call.name == "unbind" or (by_count and len(set(sizes)) > 1):
        return state.stuck([value], "takes channels by position")
    given = any(isinstance(bound.get(name), list) for name in _GIVEN)
    tied = _cut_points(state, value, points, given=given)
    starts = [0, *points]
    return tuple(
        Activation(shape, dim, tied.vector[start : start + size])
        for shape, start, size in zip(shapes, starts, sizes, strict=True)
    )


def _split_parameter(state: Pass, value: Parameter, dim: int, shapes: list[Shape]) -> Result:
    """Pieces of a weight that serve different uses: equal positions live or die together."""
    if state.call.name == "unbind":
        return state.stuck([value], "parameter taken apart")
    points = np.cumsum([shape[dim] for shape in shapes])
    labels = state.owned(value, dim % len(value.shape))
    if labels is None:
        return state.stuck([value], "a mixed dimension is taken apart")
    _blocks(state, labels, gcd(*points.tolist()))
    parts: list[Argument] = []
    start = 0
    for shape in shapes:
        begin, length = start, shape[dim]
        cut = lambda c, begin=begin, length=length: c.narrow(dim, begin, length)  # type: ignore[misc]  # noqa: E731
        parts.append(moved(state, value, cut))
        start += length
    return tuple(parts)


def cat(state: Pass, bound: Bound) -> Result:
    """Concatenation along the channels appends labels, along another dimension ties them."""
    return _join(
        state, list(bound["tensors"]), bound.get("dim", 0) % len(state.call.shapes[0] or (0,))
    )


def stack(state: Pass, bound: Bound) -> Result:
    """Concatenation along a new dimension."""
    shape = state.call.shapes[0] or ()
    dim = bound.get("dim", 0) % len(shape)
    widened = []
    for value in bound["tensors"]:
        if isinstance(value, Activation):
            place = None if value.dim is None else value.dim + (value.dim >= dim)
            value = value.with_shape((*value.shape[:dim], 1, *value.shape[dim:]), place)
        widened.append(value)
    return _join(state, widened, dim)


def _join(state: Pass, values: list[Argument], dim: int) -> Result:
    shape = state.call.shapes[0] or ()
    if not all(isinstance(value, Activation) for value in values):
        return state.stuck(values, "joins a parameter")
    values = [value for value in values if value.shape != (0,)]  # cat ignores legacy empty tensors
    dims = {value.dim for value in values if value.dim is not None}
    if dims <= {dim}:
        labels = [value.along(dim) for value in values]
        return Activation(shape, dim, np.concatenate(labels))
    if len(dims) > 1:
        return state.stuck(values, "channels of the operands lie along different dimensions")
    (place,) = dims
    base = next(value.vector for value in values if value.dim is not None)
    for value in values:
        state.labels.tie(base, value.vector)
    return Activation(shape, place, base)


def glu(state: Pass, bound: Bound) -> Result:
    """First half times the sigmoid of the second."""
    value, shape = bound["self"], state.call.shapes[0] or ()
    if not isinstance(value, Activation) or not _hits_channels(value, bound["dim"]):
        return (
            value.with_shape(shape, value.dim)
            if isinstance(value, Activation)
            else state.stuck([value], "gated")
        )
    half = len(value.vector) // 2
    return Activation(shape, value.dim, _blocks(state, value.vector, half)[:half])


def pixel_shuffle(state: Pass, bound: Bound) -> Result:
    """(C·r², H, W) to (C, H·r, W·r): r² consecutive channels are one unit."""
    value, shape, square = bound["self"], state.call.shapes[0] or (), bound["upscale_factor"] ** 2
    labels = _channels(value)
    if labels is None:
        return state.stuck([value], "channels lie along another dimension")
    cells = labels.reshape(-1, square)
    state.labels.tie(cells, cells[:, :1])
    return Activation(shape, len(shape) - 3, cells[:, 0].copy())


def pixel_unshuffle(state: Pass, bound: Bound) -> Result:
    """(C, H·r, W·r) to (C·r², H, W)."""
    value, shape = bound["self"], state.call.shapes[0] or ()
    labels = _channels(value)
    if labels is None:
        return state.stuck([value], "channels lie along another dimension")
    return Activation(shape, len(shape) - 3, np.repeat(labels, bound["downscale_factor"] ** 2))


def channel_shuffle(state: Pass, bound: Bound) -> Result:
    """Channel k of group g moves to position k·groups + g."""
    value, shape, groups = bound["self"], state.call.shapes[0] or (), bound["groups"]
    labels = value.along(1) if isinstance(value, Activation) else None
    if labels is None:
        return state.stuck([value], "channels lie along another dimension")
    block = len(labels) // groups
    return Activation(shape, 1, np.repeat(_blocks(state, labels, block)[:block], groups))


def im2col(state: Pass, bound: Bound) -> Result:
    """(N, C, H, W) to (N, C·kh·kw, L): each channel becomes kh·kw rows."""
    value, shape = bound["self"], state.call.shapes[0] or ()
    labels = _channels(value)
    if labels is None:
        return state.stuck([value], "channels lie along another dimension")
    return Activation(shape, len(shape) - 2, np.repeat(labels, shape[-2] // len(labels)))


def col2im(state: Pass, bound: Bound) -> Result:
    """(N, C·kh·kw, L) to (N, C, H, W): kh·kw consecutive rows are one channel."""
    value, shape = bound["self"], state.call.shapes[0] or ()
    labels = value.along(len(value.shape) - 2) if isinstance(value, Activation) else None
    if labels is None:
        return state.stuck([value], "channels lie along another dimension")
    rows = labels.reshape(shape[-3], -1)
    state.labels.tie(rows, rows[:, :1])
    return Activation(shape, len(shape) - 3, rows[:, 0].copy())


def _channels(value: Argument) -> Vector | None:
    return (
        value.along(len(value.shape) - 3)
        if isinstance(value, Activation) and len(value.shape) >= 3
        else None
    )


RULES = {
    "slice": slice_,
    "narrow": slice_,
    "select": select,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk",
                     "unsafe_split", "unsafe_split_with_sizes", "unbind"), split),
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "stack": stack,
    "glu": glu,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "im2col": im2col,
    "col2im": col2im,
}  # fmt: skip

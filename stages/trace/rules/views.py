"""Data movement: the operator itself is run on the labels.

Where a size could be hard-coded in forward or derived from the channel count, the trace cannot
tell. `view(b, 2, c // 2)` is read as "2 stays, c // 2 shrinks" (`Reading.INNER`), so equal
positions of the pieces are tied, and the network is cut to see. If that fails, the other reading is
tried (OUTER), and then the site keeps its channels (FIXED).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stages.trace.capture.calls import flatten
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import (
    Activation,
    Argument,
    Bound,
    Move,
    Parameter,
    Result,
    Vector,
    along,
    varying_dims,
)
from stages.trace.propagate.readings import Reading

_DIMS = ("dim", "dims", "dimension", "dim1", "dim2")


@dataclass(frozen=True)
class _Moved:
    """Where channels are after a move: `ids` along `dim`, and which of them are tied."""

    shape: tuple[int, ...]
    dim: int | None
    ids: Vector
    tied: tuple[Vector, Vector] | None = None


def moved(state: Pass, value: Argument, move: Move, *, fixed: bool = False) -> Result:
    """`move` applied to the labels of an activation, or to the coordinates of a parameter.

    A `fixed` move is the same whenever the network is labelled, and is remembered.
    """
    if isinstance(value, Parameter):
        return value.moved_by(move, state.call.shapes[0] or ())
    if value.dim is None:
        return Activation(tuple(move(value.expanded()).shape), None, value.vector)
    # numbers from 0 on, equal where labels are: those are other ones in every labelling
    labels, ids = _numbered(value.vector)
    key = value.dim, value.shape, ids.tobytes(), state.reading
    found = state.call.moves.get(key)
    if found is None:
        found = _move(Activation(value.shape, value.dim, ids + 1), move, state.reading)
        if fixed:
            state.call.moves[key] = found
    if found.tied is not None:
        state.labels.split_sites[state.call.site] = None
        state.labels.tie(labels[found.tied[0]], labels[found.tied[1]])
    return Activation(found.shape, found.dim, labels[found.ids])


def _numbered(vector: Vector) -> tuple[Vector, Vector]:
    """As `np.unique` with its inverse; at once for new labels, which follow one another."""
    if bool((vector[1:] - vector[:-1] == 1).all()):
        return vector, np.arange(len(vector))
    return np.unique(vector, return_inverse=True)


def _move(value: Activation, move: Move, reading: Reading) -> _Moved:
    """Where the labels of an activation, which count from 1, come to lie."""
    labels = move(value.expanded())
    dims, tied = varying_dims(labels), None
    if len(dims) > 1:
        dims, labels, pairs = _split(labels, dims, reading)
        tied = pairs[0] - 1, pairs[1] - 1
    if not dims:
        return _Moved(tuple(labels.shape), None, labels.reshape(-1)[:1].numpy() - 1, tied)
    return _Moved(tuple(labels.shape), dims[0], along(labels, dims[0]) - 1, tied)


def _split(
    labels: torch.Tensor, dims: list[int], reading: Reading
) -> tuple[list[int], torch.Tensor, tuple[Vector, Vector]]:
    """Channels spread over several dimensions: keep one, tie equal positions along the others."""
    kept = dims[0] if reading is Reading.OUTER else dims[-1]
    first = labels
    for dim in range(labels.dim()):
        if dim != kept:
            first = first.narrow(dim, 0, 1)
    first = first.expand(labels.shape)
    narrowed, small = labels, first
    # beside the channels labels repeat themselves: one index is enough to tie, and much cheaper
    for dim in range(labels.dim()):
        if dim not in dims:
            narrowed, small = (
                narrowed.select(dim, 0).unsqueeze(dim),
                small.select(dim, 0).unsqueeze(dim),
            )
    tied = narrowed.contiguous().numpy(), small.contiguous().numpy()
    return ([kept] if labels.shape[kept] > 1 else []), first, tied


def view(state: Pass, bound: Bound) -> Result:
    """view, reshape, unflatten: splits and merges dimensions by given sizes."""
    value, shape = bound["self"], state.call.shapes[0]
    assert shape is not None
    return moved(state, value, lambda labels: labels.reshape(shape), fixed=True)


def same_op(state: Pass, bound: Bound) -> Result:
    """The operator is run as it is; no size of it can depend on the channels."""
    target, rest = state.call.target, list(bound.items())[1:]
    return moved(state, bound["self"], lambda labels: target(labels, **dict(rest)), fixed=True)


def along_others(state: Pass, bound: Bound) -> Result:
    """Sound as it is along dimensions without channels, stuck along the channels."""
    value = bound["self"]
    if isinstance(value, Activation) and value.dim is not None:
        given = [bound[name] for name in _DIMS if bound.get(name) is not None]
        dims = [dim for dim in flatten(given) if isinstance(dim, int)] or range(len(value.shape))
        if value.dim in {dim % len(value.shape) for dim in dims}:
            return state.stuck([value], "picks channels by position")
    return same_op(state, bound)


def expand(state: Pass, bound: Bound) -> Result:
    """Explicit broadcast to given sizes."""
    value, shape = bound["self"], state.call.shapes[0]
    assert shape is not None
    if (
        isinstance(value, Activation)
        and value.dim is None
        and value.vector[0] > 0
        and value.shape != shape
    ):
        return state.stuck([value], "its only channel is broadcast over a given size")
    return moved(state, value, lambda labels: labels.expand(shape), fixed=True)


def index(state: Pass, bound: Bound) -> Result:
    """`x[i, j]` with index tensors: fine beside the channels."""
    value, indices = bound["self"], bound["indices"]
    if not isinstance(value, Activation):
        return state.stuck([value, indices], "parameter picked by index")
    used = [position for position, item in enumerate(indices) if item is not None]
    if any(isinstance(item, Activation) and not item.is_fixed for item in indices):
        return state.stuck([value, indices], "index computed from channels")
    if value.dim in used or (value.dim is None and value.vector[0] > 0):
        return state.stuck([value], "picks channels by position")
    chosen = tuple(
        # which positions does not matter, only what shape they leave
        slice(None) if item is None else torch.zeros(item.shape, dtype=torch.int64)
        for item in indices
    )
    return moved(state, value, lambda labels: labels[chosen])


def index_select(state: Pass, bound: Bound) -> Result:
    """One dimension re-ordered by an index tensor."""
    value, dim = bound["self"], bound["dim"]
    if not isinstance(value, Activation) or value.dim in (None, dim % max(len(value.shape), 1)):
        if isinstance(value, Activation) and value.is_fixed:
            return Activation(state.call.shapes[0] or (), None, value.vector)
        return state.stuck([value, bound["index"]], "picks channels by position")
    return value.with_shape(state.call.shapes[0] or (), value.dim)


def pad(state: Pass, bound: Bound) -> Result:
    """Padding beside the channels changes nothing; zero channels (option-A shortcuts) are fixed
    ones.
    """
    value, pads = bound["self"], list(bound.get("pad") or bound.get("padding") or ())
    shape = state.call.shapes[0]
    assert shape is not None
    if isinstance(value, Parameter):
        return _padded(state, value, pads)
    before = after = 0
    if value.dim is not None:
        place = 2 * (len(value.shape) - 1 - value.dim)  # pads begin with the last dimension
        before, after = (pads + [0] * len(shape) * 2)[place : place + 2]
    if before == after == 0:
        return value.with_shape(shape, value.dim)
    if min(before, after) < 0 or bound.get("mode", "constant") != "constant":
        return state.stuck([value], "pads or crops channels by position")
    fixed = state.labels.fixed(state.why("zero-padded channels"))
    ends = [np.full(size, fixed, dtype=np.int64) for size in (before, after)]
    return Activation(shape, value.dim, np.concatenate([ends[0], value.vector, ends[1]]))


def _padded(state: Pass, value: Parameter, pads: list[int]) -> Result:
    """A kernel with a margin; new elements count as those at the edge, whose slices they share."""
    if min(pads) < 0:
        return state.stuck([value], "cropped parameter")

    def edges(coordinate: torch.Tensor) -> torch.Tensor:
        for place in range(len(pads) // 2):
            dim = coordinate.dim() - 1 - place
            before, after = pads[2 * place : 2 * place + 2]
            at = torch.arange(-before, coordinate.shape[dim] + after)
            coordinate = coordinate.index_select(dim, at.clamp(0, coordinate.shape[dim] - 1))
        return coordinate

    return value.moved_by(edges, (), computed=True)


RULES = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "_reshape_alias", "unflatten", "view_as",
        "reshape_as"), view),
    **dict.fromkeys(
        ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "numpy_T",
         "mT", "flatten", "squeeze", "unsqueeze", "repeat", "tile", "flip", "ravel", "adjoint",
         "matrix_H"), same_op),
    **dict.fromkeys(("roll", "rot90", "unfold", "diagonal", "fft_fftshift",
        "fft_ifftshift"), along_others),
    "expand": expand,
    "index": index,
    "index_select": index_select,
    **dict.fromkeys(
        ("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
         "replication_pad1d", "replication_pad2d", "replication_pad3d", "_pad_circular"), pad),
}  # fmt: skip

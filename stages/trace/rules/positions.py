"""Operators over positions that no other table has: picking, repeating, Fourier transforms."""

from __future__ import annotations

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Activation, Bound, Result
from stages.trace.rules.pointwise import meet
from stages.trace.rules.views import moved, same_op


def transformed(state: Pass, bound: Bound) -> Result:
    """Fourier transforms: channels survive beside them."""
    value, dims = bound.first, bound.get("dim")
    if not isinstance(value, Activation):
        return state.stuck(bound, "transforms a parameter")
    # `dim=None` of fftn is all dimensions
    dims = [dims] if isinstance(dims, int) else dims or range(len(value.shape))
    if value.dim in {dim % len(value.shape) for dim in dims}:
        return state.stuck([value], "mixes channels")
    return state.results(lambda shape: value.with_shape(shape, value.dim))


def gather(state: Pass, bound: Bound) -> Result:
    """gather and take_along_dim: picks positions, for every channel its own or the same for all."""
    value, index, dim = bound["self"], bound.get("index", bound.get("indices")), bound["dim"]
    shape = state.call.shapes[0] or ()
    if not isinstance(value, Activation) or not isinstance(index, Activation) or dim is None:
        return state.stuck(bound, "picks by position")
    whole = value.dim is None or shape[value.dim] == len(value.vector)
    if dim % len(shape) in (value.dim, index.dim) or not whole:
        return state.stuck(bound, "picks channels by position")
    return meet(state, [value.with_shape(shape, value.dim), index], shape)


def repeat_interleave(state: Pass, bound: Bound) -> Result:
    """Every element, or with channels along `dim` every channel, so many times in a row."""
    if not isinstance(bound.get("repeats"), int):
        return state.stuck(bound, "repeats channels by a tensor")
    return same_op(state, bound)


def to_complex(state: Pass, bound: Bound) -> Result:
    """The last dimension, real and imaginary parts, is taken away."""
    value = bound["self"]
    if isinstance(value, Activation) and value.dim == len(value.shape) - 1:
        return state.stuck([value], "takes channels for real and imaginary parts")
    return moved(state, value, lambda labels: labels[..., 0])


def to_real(state: Pass, bound: Bound) -> Result:
    """Real and imaginary parts along a new last dimension."""
    return moved(state, bound["self"], lambda labels: labels.unsqueeze(-1).expand(*labels.shape, 2))


_FOURIER = [f"fft_{kind}{size}" for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
            for size in ("", "2", "n")]  # fmt: skip

RULES = {
    **dict.fromkeys(_FOURIER, transformed),
    **dict.fromkeys(("gather", "take_along_dim"), gather),
    "repeat_interleave": repeat_interleave,
    "view_as_complex": to_complex,
    "view_as_real": to_real,
}

"""Operators that mix elements along some dimensions only: pooling, resizing, reductions,
softmax.
"""

from __future__ import annotations

from dataclasses import replace

from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Activation, Bound, Parameter, Result
from stages.trace.rules.computed_weights import is_sum, stays
from stages.trace.rules.computed_weights import reduced as reduced_weight
from stages.trace.rules.contract import Rule
from stages.trace.rules.pointwise import pointwise


def pooled(spatial: int) -> Rule:
    """Rule for an operator over the last `spatial` dimensions."""

    def rule(state: Pass, bound: Bound) -> Result:
        value = bound.first
        if not isinstance(value, Activation):
            return state.stuck(bound, "parameter resized")
        if value.dim is not None and value.dim >= len(value.shape) - spatial:
            return state.stuck([value], "mixes channels")
        return state.results(lambda shape: value.with_shape(shape, value.dim))

    return rule


def reduced(state: Pass, bound: Bound) -> Result:
    """mean, sum, max, norm …: channels survive when the reduction runs beside them."""
    value = bound.first
    if isinstance(value, Parameter):
        return _of_parameter(state, value, bound)
    if not isinstance(value, Activation):
        return state.stuck(bound, "reduces no tensor")
    if isinstance(bound.get("other"), Activation):  # max(a, b)
        return pointwise(state, bound)
    ndim = len(value.shape)
    given = bound.get("dim", bound.get("dims"))
    # `dim=[]` is all dimensions, as torch has it
    dims = {d % ndim for d in ([given] if isinstance(given, int) else given or range(ndim))}
    single = value.dim is None and value.vector[0] > 0
    if single and dims - {d for d in range(ndim) if value.shape[d] == 1}:
        return _single(state, value)
    if value.dim in dims and not single:
        return _over_channels(state, value, bound)
    keep = bool(bound.get("keepdim"))
    place = value.dim if keep or value.dim is None else value.dim - sum(d < value.dim for d in dims)
    return state.results(lambda shape: value.with_shape(shape, place))


def _of_parameter(state: Pass, value: Parameter, bound: Bound) -> Result:
    if isinstance(bound.get("other"), (Activation, Parameter)):  # max(a, b)
        return pointwise(state, bound)
    given = bound.get("dim", bound.get("dims"))
    dims = [given] if isinstance(given, int) else given or range(len(value.shape))
    return reduced_weight(state, value, dims, bool(bound.get("keepdim")), is_sum(state, bound))


def _over_channels(state: Pass, value: Activation, bound: Bound) -> Result:
    """A sum is the same without zeros; a mean counts them, and for a maximum they are values."""
    ref = state.call.argument(next(iter(bound)))
    if not is_sum(state, bound) or not state.zeros.at(ref, state.call):
        return state.stuck([value], "reduces over channels")
    return state.results(lambda shape: state.fixed(shape, state.why("sums over channels")))


def _single(state: Pass, value: Activation) -> Result:
    """One unit fills the tensor; nothing of it could be cut alone, so its label simply goes on."""
    state.labels.freeze(value.vector, state.why("reduces its only unit"))
    return state.results(lambda shape: value.with_shape(shape, None))


def ranged(state: Pass, bound: Bound) -> Result:
    """softmax, cumsum, sort …: shape stays, elements along `dim` influence each other."""
    value, dim = bound.first, bound.get("dim", -1)
    if isinstance(value, Parameter):
        stays(state, value, [dim])
        return state.results(lambda shape: replace(value, computed=True))
    if not isinstance(value, Activation):
        return state.stuck(bound, "normalises no tensor")
    if value.dim is None and value.vector[0] <= 0:
        return state.results(lambda shape: value.with_shape(shape, None))
    if not isinstance(dim, int) or value.dim is None or value.dim == dim % len(value.shape):
        return state.stuck([value], "mixes channels")
    return state.results(lambda shape: value.with_shape(shape, value.dim))


_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool",
          "fractional_max_pool", "_adaptive_avg_pool", "upsample_nearest",
          "_upsample_nearest_exact")  # fmt: skip
_RESIZES = {
    "upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_bicubic2d": 2,
    "upsample_trilinear3d": 3, "_upsample_bilinear2d_aa": 2, "_upsample_bicubic2d_aa": 2,
    "grid_sampler": 2, "grid_sampler_2d": 2, "max_pool1d_with_indices": 1,
    "max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3,
}  # fmt: skip

RULES = {
    **{f"{name}{n}d": pooled(n) for name in _POOLS for n in (1, 2, 3)},
    **{name: pooled(n) for name, n in _RESIZES.items()},
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "std", "var", "norm", "linalg_vector_norm", "logsumexp",
         "prod", "any", "all", "max", "min", "median", "argmax", "argmin", "std_mean", "var_mean",
         "nanmean", "nansum", "count_nonzero", "kthvalue", "mode"),
        reduced),
    **dict.fromkeys(
        ("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp",
         "sort", "argsort", "topk"),
        ranged),
}  # fmt: skip

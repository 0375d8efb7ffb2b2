"""Element-wise operators with broadcasting: an element of the result belongs to the unit of
each operand's element.
"""

from __future__ import annotations

from math import prod

from stages.trace.capture.calls import flatten
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import (
    Activation,
    Argument,
    Bound,
    Parameter,
    Result,
)
from stages.trace.rules.computed_weights import combined, divides

# f(0) is infinite or undefined: a silenced channel would turn into NaN that a zero weight does not
# remove. Where zero is not known to arrive, as in 1 / (x + eps), the check of a cut decides.
_SINGULAR_OPERAND = {
    "div": "other", "divide": "other", "true_divide": "other", "floor_divide": "other",
    "remainder": "other", "fmod": "other", "reciprocal": "self", "rsqrt": "self", "log": "self",
    "log2": "self", "log10": "self", "logit": "self", "digamma": "self", "lgamma": "self",
    "addcdiv": "tensor2", "xlogy": "other",
}  # fmt: skip


def pointwise(state: Pass, bound: Bound) -> Result:
    """Unify what meets; a free parameter or buffer joins the units it is broadcast against."""
    operands = [value for value in flatten(bound) if isinstance(value, (Activation, Parameter))]
    divisor = bound.get(_divisor(state, bound))
    if isinstance(divisor, Parameter) and not any(isinstance(v, Activation) for v in operands):
        divides(state, divisor)
    shape = next((shape for shape in state.call.shapes if shape is not None), ())
    result = meet(state, operands, shape)
    if isinstance(result, Activation) and _singular(state, bound, result):
        return state.stuck([operands, result], "a silenced channel would make it infinite here")
    return state.results(lambda _: result) if len(state.call.shapes) > 1 else result


def same(state: Pass, bound: Bound) -> Result:
    """The values themselves: copies, casts, dropout."""
    return next(value for value in flatten(bound) if isinstance(value, (Activation, Parameter)))


def like(state: Pass, bound: Bound) -> Result:
    """A new tensor as wide as the operand (`zeros_like`)."""
    value = bound.get("self")
    return (
        value
        if isinstance(value, Activation)
        else state.fixed(state.call.shapes[0] or (), state.why("constant"))
    )


def created(state: Pass, bound: Bound) -> Result:
    """A tensor whose size is written in forward."""
    return state.fixed(state.call.shapes[0] or (), state.why("tensor of a size given in forward"))


def expand_as(state: Pass, bound: Bound) -> Result:
    """A broadcast whose size follows the other operand."""
    value, shape = bound["self"], state.call.shapes[0] or ()
    if isinstance(value, Parameter) and isinstance(bound["other"], Parameter):
        return value.moved_by(lambda coordinate: coordinate.expand(shape), shape)
    return meet(state, [value, bound["other"]], shape)


def meet(state: Pass, operands: list[Argument], shape: tuple[int, ...]) -> Result:
    """An element-wise result of `shape`: labels of operands are tied where they meet."""
    activations = [value for value in operands if isinstance(value, Activation)]
    parameters = [value for value in operands if isinstance(value, Parameter)]
    # 2 * weight is still a weight
    numbers = all(value.is_fixed and prod(value.shape) == 1 for value in activations)
    if parameters and numbers:
        return combined(parameters, shape)
    if not activations:
        return state.fixed(shape, state.why("constant"))
    dims = {
        value.dim + len(shape) - len(value.shape) for value in activations if value.dim is not None
    }
    if len(dims) > 1:
        return state.stuck(operands, "channels of the operands lie along different dimensions")
    if not dims:
        return _without_channels(state, activations, parameters, shape)
    (dim,) = dims
    base = next(value.vector for value in activations if value.dim is not None)
    for value in activations:
        if value.dim is not None or _size(value, dim, shape) > 1:
            state.labels.tie(base, value.vector)
        elif value.vector[0] > 0:
            state.labels.freeze(value.vector, state.why("its only channel is broadcast over many"))
    for stored in parameters:
        if _size(stored, dim, shape) > 1:
            state.read(stored, dim - len(shape) + len(stored.shape), base)
    return Activation(shape, dim, base)


def _without_channels(
    state: Pass, activations: list[Activation], parameters: list[Parameter], shape: tuple[int, ...]
) -> Activation:
    """Operands of one unit each, or fixed; a unit that is broadcast or meets a parameter cannot
    be told apart.
    """
    units = [value for value in activations if value.vector[0] > 0]
    if not units:
        return Activation(shape, None, activations[0].vector)
    for value in units:
        wide = any(parameter.shape and max(parameter.shape) > 1 for parameter in parameters)
        if (
            wide
            or value.shape != shape
            or any(other.shape not in (shape, ()) for other in activations)
        ):
            state.labels.freeze(value.vector, state.why("its only unit is broadcast"))
        state.labels.tie(units[0].vector, value.vector)
    for value in activations:
        # fixed ones as well: what meets them stays
        if value.shape == shape:
            state.labels.tie(units[0].vector, value.vector)
    return Activation(shape, None, units[0].vector)


def _size(value: Activation | Parameter, dim: int, shape: tuple[int, ...]) -> int:
    own = dim - len(shape) + len(value.shape)
    return value.shape[own] if own >= 0 else 1


def _divisor(state: Pass, bound: Bound) -> str:
    """The name of the operand that must not be zero, "" if there is none."""
    name = state.call.name.rstrip("_")
    if name == "pow":
        exponent = bound.get("exponent")
        return "self" if isinstance(exponent, (int, float)) and exponent < 0 else ""
    return _SINGULAR_OPERAND.get(name, "")


def _singular(state: Pass, bound: Bound, result: Activation) -> bool:
    operand = _divisor(state, bound)
    ref = state.call.argument(operand) if operand else None
    return state.zeros.along(ref, result, state.call)


RULES = {
    **dict.fromkeys(
        ("clone", "contiguous", "alias", "detach", "to", "_to_copy", "type_as", "dropout",
         "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "lift_fresh_copy",
         "lift_fresh", "lift", "fill", "zero", "requires_grad", "positive", "resolve_conj",
         "resolve_neg", "real", "imag", "conj", "_conj", "float", "double", "half"), same),
    **dict.fromkeys(
        ("hardswish", "relu6", "log_sigmoid", "copy", "masked_fill", "rsub", "where", "softshrink",
         "tanhshrink", "hardshrink", "softplus", "erf", "sub", "subtract", "multiply", "add",
         "square", "clip", "max_unpool2d", "max_unpool3d", "complex", "polar",
         "fake_quantize_per_tensor_affine"), pointwise),
    **dict.fromkeys(  # which of them torch tags as element-wise differs from version to version
        ("relu", "hardtanh", "hardsigmoid", "silu", "gelu", "elu", "celu", "selu", "mish",
         "leaky_relu", "threshold", "tanh", "sigmoid", "clamp", "clamp_min", "clamp_max", "abs",
         "neg", "exp", "pow", "sqrt", "mul", "div"), pointwise),
    **dict.fromkeys(
        ("zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "empty_like",
            "bernoulli"), like),
    **dict.fromkeys(
        ("zeros", "ones", "full", "arange", "empty", "rand", "randn", "eye", "linspace",
         "scalar_tensor", "new_zeros", "new_ones", "new_full", "new_empty", "tensor"), created),
    "expand_as": expand_as,
}  # fmt: skip

"""Where a silenced unit leaves zeros, so that a sum over channels is the same without it.

Weights of a removed unit are zero in the silenced network, and so is what they make, until an
operator turns zero into something else:

    conv, batch norm   zeros: their rows, weights and biases are
    relu, pooling      zeros if what arrives is
    x * y              zeros if one of the two is
    x + y              zeros if both are
    sigmoid, softmax   halves, shares: no zeros
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from stages.trace.capture.calls import Call, Ref
from stages.trace.capture.operators import aliases, writes
from stages.trace.propagate.label_values import Activation, Parameter

CONVOLUTIONS = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
     "convolution", "linear"}
)  # fmt: skip
NORMS = frozenset({"batch_norm", "instance_norm", "group_norm"})
# f(0) = 0, or elements are moved about
OF_ONE = frozenset(
    {"relu", "relu6", "leaky_relu", "gelu", "silu", "tanh", "elu", "selu", "celu", "hardswish",
     "mish", "neg", "abs", "square", "sqrt", "sin", "erf", "sign", "round", "floor", "ceil",
     "log1p", "expm1", "prelu", "dropout", "feature_dropout", "clone", "contiguous", "alias",
     "detach", "to", "_to_copy", "type_as", "float", "double", "half", "view", "reshape",
     "_unsafe_view", "_reshape_alias", "unflatten", "view_as", "reshape_as", "permute",
     "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "numpy_T", "mT", "flatten",
     "squeeze", "unsqueeze", "repeat", "tile", "flip", "roll", "expand", "expand_as", "slice",
     "narrow", "select", "chunk", "split", "split_with_sizes", "tensor_split", "unbind", "index",
     "index_select", "gather", "getitem", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
     "im2col", "unfold", "diagonal", "repeat_interleave", "max_pool1d", "max_pool2d",
     "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
     "adaptive_avg_pool2d", "col2im", "upsample_nearest2d", "upsample_bilinear2d",
     "mean", "sum", "amax", "amin", "std", "var", "norm", "linalg_vector_norm"}
)  # fmt: skip
_OF_ALL = frozenset({"add", "sub", "maximum", "minimum", "copy"})
_JOINS = frozenset({"cat", "concat", "stack"})
_RATIOS = frozenset({"div", "divide", "true_divide"})
BOUNDS = {"hardtanh": ("min_val", "max_val"), "clamp": ("min", "max"), "clamp_min": ("min",),
           "clamp_max": ("max",)}  # fmt: skip


class Zeros:
    """Follows zeros through the calls of one capture, as far as labels have come."""

    def __init__(self, calls: Iterable[Call], values: Mapping[int, Any]) -> None:
        self._ahead, self._values = list(reversed(tuple(calls))), values
        self._zero: set[int] = set()
        self._memory: dict[int, int] = {}

    def mark(self, call: Call) -> None:
        """Units leave zeros in the result of the running call, its rule says."""
        self._zero.add(call.index)

    def at(self, ref: Any, before: Call) -> bool:
        """Whether units leave zeros in an argument of `before`, the running call."""
        self._catch_up(before)
        return isinstance(ref, Ref) and ref.index in self._zero

    def along(self, ref: Any, result: Activation, before: Call) -> bool:
        """Whether they do at the very channels of an element-wise result, parameters included."""
        self._catch_up(before)
        return isinstance(ref, Ref) and self._along(ref, result)

    # no sooner: whether a call leaves zeros depends on the labels that its rule has given it
    def _catch_up(self, before: Call) -> None:
        while self._ahead and self._ahead[-1].index < before.index:
            self._follow(self._ahead.pop())

    def _follow(self, call: Call) -> None:
        refs = call.refs
        if refs and self._leaves_zeros(call, refs):
            self._zero.add(call.index)
        if not refs or not isinstance(call.target, torch._ops.OpOverload):
            return
        if aliases(call.target):  # a view, or in place
            self._memory[call.index] = self._memory.get(refs[0].index, refs[0].index)
        if writes(call.target) and call.index not in self._zero:
            self._written(call.index)

    def _written(self, index: int) -> None:
        """The memory holds something else now, by whatever name it is known."""
        memory = self._memory.get(index)
        if memory is None:  # nobody knows what was written into
            self._zero.clear()
        shared = {other for other, place in self._memory.items() if place == memory}
        self._zero -= shared | {memory}

    def _leaves_zeros(self, call: Call, refs: tuple[Ref, ...]) -> bool:
        name = call.name.removesuffix("_")
        if name in OF_ONE:
            return refs[0].index in self._zero
        if name in BOUNDS:
            return refs[0].index in self._zero and holds_zero(call, BOUNDS[name])
        if name.endswith(("pad", "pad_nd")):
            return refs[0].index in self._zero and not call.argument("value")
        if name in _JOINS:
            # a fixed part has no units
            return all(ref.index in self._zero or self._is_fixed(ref) for ref in refs)
        result = self._values[call.index]
        if not isinstance(result, Activation) or result.dim is None:
            return call.index in self._zero
        if name in CONVOLUTIONS or name in NORMS:
            return self._by_weights(call, result.dim, len(result.shape))
        zeros = [self._along(ref, result) for ref in refs]
        if name in _RATIOS:
            return zeros[0]  # whether it divides by zero is asked elsewhere
        if name in ("mul", "multiply"):
            return any(zeros)
        return call.index in self._zero or (name in _OF_ALL and len(refs) > 1 and all(zeros))

    def _by_weights(self, call: Call, dim: int, ndim: int) -> bool:
        """Rows of a stored weight, and of a bias if there is one, make the channels."""
        weight, bias = (self._value(call.argument(name)) for name in ("weight", "bias"))
        # dimension 1 of a batch of images, 0 of a single image, the last of a linear layer
        channel = 1 if call.name in NORMS else ndim - len(getattr(weight, "shape", ())) + 1
        return dim == channel and _plain(weight) and (bias is None or _plain(bias))

    def _along(self, ref: Ref, result: Activation) -> bool:
        value = self._value(ref)
        if result.dim is None or not isinstance(value, (Activation, Parameter)):
            return False
        dim = result.dim - len(result.shape) + len(value.shape)
        if isinstance(value, Activation):
            return value.dim == dim and ref.index in self._zero
        return dim >= 0 and value.shape[dim] > 1 and _plain(value)

    def _is_fixed(self, ref: Ref) -> bool:
        value = self._value(ref)
        return isinstance(value, Activation) and value.is_fixed

    def _value(self, ref: Any) -> Any:
        if not isinstance(ref, Ref):
            return None
        value = self._values[ref.index]
        return value[ref.item] if isinstance(value, tuple) and ref.item is not None else value


def _plain(value: Any) -> bool:
    """Silenced with the unit: a parameter itself, no buffer and no function of one."""
    return isinstance(value, Parameter) and not (value.buffer or value.computed)


def holds_zero(call: Call, names: tuple[str, ...]) -> bool:
    """Zero lies within the bounds, all of them numbers."""
    bounds = {name[:3]: call.argument(name) for name in names}  # hardtanh has min_val and max_val
    if any(isinstance(bound, Ref) for bound in bounds.values()):
        return False
    low, high = bounds.get("min"), bounds.get("max")
    return (low is None or low <= 0) and (high is None or high >= 0)

"""ONNX operators in PyTorch: those of which classifiers are made, for a graph that is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional as F

Attributes = Mapping[str, Any]
Inputs = Sequence[Tensor | None]


class Unsupported(Exception):
    """A node that is not known here, in words."""


def operator(node: onnx.NodeProto) -> Callable[[Inputs], Tensor]:
    """What the node computes of its inputs; an optional one that it lacks is None.

    Raises:
        Unsupported: it is of another type, or has an attribute that is not known here.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx"):
        raise Unsupported(f"{node.op_type} ({node.name}) cannot be trained here")
    if _unknown_padding(node.op_type, attributes):
        raise Unsupported(f"the padding of {node.name} cannot be trained here")
    function = _OPERATORS[node.op_type]
    return lambda inputs: function(attributes, *inputs)


def _unknown_padding(kind: str, a: Attributes) -> bool:
    pads = list(a.get("pads", ()))
    # an average counts what is padded or not, which torch does for both sides alike
    uneven = kind == "AveragePool" and pads[: len(pads) // 2] != pads[len(pads) // 2 :]
    by_itself = a.get("auto_pad", b"NOTSET") != b"NOTSET" or bool(a.get("ceil_mode", 0))
    return uneven or by_itself or (kind == "Pad" and a.get("mode", b"constant") != b"constant")


def _padded(a: Attributes, x: Tensor, value: float = 0.0) -> Tensor:
    """`x` with the borders that the attribute `pads` asks for."""
    pads = list(a.get("pads", ()))
    return _pad(x, pads, value) if any(pads) else x


def _pad(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    half = len(pads) // 2
    ends = zip(reversed(pads[:half]), reversed(pads[half:]), strict=True)  # torch: last axis first
    return F.pad(x, [size for pair in ends for size in pair], value=value)


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation = (tuple(a.get(name, ())) or 1 for name in ("strides", "dilations"))
    pads = list(a.get("pads", ())) or [0, 0, 0, 0]
    # torch's own padding where it has it: a padded copy of every image takes longer
    same = pads[: len(pads) // 2] == pads[len(pads) // 2 :]
    x, padding = (x, pads[: len(pads) // 2]) if same else (_padded(a, x), [0, 0])
    return F.conv2d(x, weight, bias, stride, padding, dilation, a.get("group", 1))


def _gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, weight = (x.T if a.get("transA") else x), (weight.T if a.get("transB") else weight)
    product = a.get("alpha", 1.0) * (x @ weight)
    return product if bias is None else product + a.get("beta", 1.0) * bias


def _clip(
    a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    ends = (a.get("min") if low is None else low, a.get("max") if high is None else high)
    return x if ends == (None, None) else torch.clamp(x, *ends)  # type: ignore[arg-type]


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    x = _padded(a, x, float("-inf"))
    return F.max_pool2d(x, a["kernel_shape"], a.get("strides", 1), 0, a.get("dilations", 1))


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    pads = list(a.get("pads", ())) or [0, 0, 0, 0]
    counted = bool(a.get("count_include_pad"))
    return F.avg_pool2d(
        x, a["kernel_shape"], a.get("strides", 1), pads[:2], count_include_pad=counted
    )


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sizes = [int(size) for size in shape]
    kept = [x.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    return x.reshape(sizes if a.get("allowzero") else kept)


def _slice(a: Attributes, x: Tensor, *where: Tensor) -> Tensor:
    starts, ends, *rest = ([int(v) for v in values] for values in where)
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    parts = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return x[tuple(parts)]


def _pad_node(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
    return _pad(x, [int(size) for size in pads], 0.0 if value is None else float(value))


def _hard_sigmoid(a: Attributes, x: Tensor) -> Tensor:
    return torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1)


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda a, x, y: x + y,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Conv": _conv,
    "Div": lambda a, x, y: x / y,
    "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda a, x: x,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "MatMul": lambda a, x, y: x @ y,
    "MaxPool": _max_pool,
    "Mul": lambda a, x, y: x * y,
    "Pad": _pad_node,
    "Relu": lambda a, x: F.relu(x),
    "Reshape": _reshape,
    "Sigmoid": lambda a, x: torch.sigmoid(x),
    "Slice": _slice,
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "Sub": lambda a, x, y: x - y,
    "Transpose": lambda a, x: x.permute(a["perm"]),
}

"""Cross-layer equalisation of a float graph. Loaded by path in the child process.

One scale must do for all channels of an activation, so a channel a hundredth as large as another
keeps one or two of its eight bits. Where only sums, ReLUs and pooling lie between layers, a channel
can be divided by a positive number, and the weights that read it multiplied: the same function
(Nagel et al. 2019, arXiv 1906.04721, section 4.1). The number is the square root of the channel's
range, so that activations and weights share the burden; the weights before, which the paper looks
at too, have a scale for every channel here. A clip at 6 does not move with its channel, so nothing
is moved past one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

# f(x / s) = f(x) / s for a positive number s of each channel
_FOLLOWS = (
    *("Add", "Sub", "Relu", "LeakyRelu", "Identity"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
)
_UNEVEN = 0.5  # half of the channels lose one of their eight bits or more
_MOST = 32.0  # a channel of nearly nothing is not blown up beyond

Reach = Callable[[list[str]], dict[str, np.ndarray]]
"""Largest absolute value of every channel (C,) of the activations of these names."""


def equalized(model: onnx.ModelProto, reach: Reach) -> bytes:
    """The graph with channels of like size, where that leaves its function as it is; empty where
    they are already, or none can be moved.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    found = spans(made)
    ranges = reach(sorted(set().union(*found))) if found else {}
    uneven = 0
    for span in found:
        relative = _uneven([ranges[name] for name in sorted(span)])
        if relative is not None:
            _divide(made, span, np.clip(np.sqrt(relative), 1 / _MOST, 1.0))
            uneven += 1
    return made.SerializeToString(deterministic=True) if uneven else b""


def spans(model: onnx.ModelProto) -> list[set[str]]:
    """Sets of activations that share their channels, which layers write and layers read."""
    constants = {tensor.name for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    joined: dict[str, set[str]] = {}
    for node in model.graph.node:
        own = [name for name in node.input[1:] if name]
        if _is_layer(node) and all(name in constants and uses[name] == 1 for name in own):
            for name in (node.input[0], node.output[0]):
                joined.setdefault(name, {name})
        elif node.op_type in _FOLLOWS and not constants.intersection(node.input):
            _join(joined, [*node.input, node.output[0]])
        else:
            ends.update(node.input, node.output)
    found = {id(span): span for span in joined.values()}
    return [span for span in found.values() if not span & ends and _is_read(model, span)]


def _join(joined: dict[str, set[str]], names: Sequence[str]) -> None:
    whole = set().union(*(joined.get(name, {name}) for name in names))
    joined.update(dict.fromkeys(whole, whole))


def _is_layer(node: onnx.NodeProto) -> bool:
    """A convolution, or a Gemm whose weight (out, in) and bias are nothing but added up."""
    if node.op_type == "Conv":
        return True
    known = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = all(known.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return node.op_type == "Gemm" and plain and known.get("transB") == 1 and not known.get("transA")


def _is_read(model: onnx.ModelProto, span: set[str]) -> bool:
    return any(node.input[0] in span for node in model.graph.node if _is_layer(node))


def _uneven(ranges: Sequence[np.ndarray]) -> np.ndarray | None:
    """Ranges of the channels (C,) relative to the largest; None where most are nearly as large."""
    if len({len(each) for each in ranges}) > 1:  # added up by broadcasting
        return None
    relative = np.max([each / max(float(each.max()), 1e-30) for each in ranges], axis=0)
    return relative if np.median(relative) < _UNEVEN else None  # nor where one is NaN


def _divide(model: onnx.ModelProto, span: set[str], factor: np.ndarray) -> None:
    """Divide the channels of a span by (C,), and multiply the weights that read it."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in (node for node in model.graph.node if _is_layer(node)):
        if node.output[0] in span:
            for name in filter(None, node.input[1:]):
                _multiply_outputs(tensors[name], 1 / factor)
        if node.input[0] in span:
            _multiply_inputs(tensors[node.input[1]], factor)


def _multiply_outputs(tensor: onnx.TensorProto, factor: np.ndarray) -> None:
    """Of a weight (out, ...) or a bias (out,)."""
    values = numpy_helper.to_array(tensor)
    scaled = (values * factor.reshape(-1, *[1] * (values.ndim - 1))).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))


def _multiply_inputs(tensor: onnx.TensorProto, factor: np.ndarray) -> None:
    """Of a weight (out, in / groups, ...), whose groups read one share of the channels each."""
    values = numpy_helper.to_array(tensor)
    groups = len(factor) // values.shape[1]
    each = factor.reshape(groups, -1).repeat(values.shape[0] // groups, axis=0)
    scaled = (values * each.reshape(*each.shape, *[1] * (values.ndim - 2))).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))

"""Which float tensor each tensor of a quantised graph came from, so that it can be cut like it.

    float      conv.weight (8, 3, 3, 3) ──▶ Conv
    quantised  conv.weight_quantized (8, 3, 3, 3) int8 ─▶ DequantizeLinear, axis 0 ─▶ Conv
               conv.weight_scale (8,), conv.weight_zero_point (8,) ─┘

Names mean nothing here: what a node of the quantised graph reads, through quantising nodes, is what
the node of the same name reads in the float graph at the same place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.errors import Refused

INSTEAD = "quantise the cut network instead"
_QUANTISING = ("QuantizeLinear", "DequantizeLinear")
_WITH_BIAS = ("Conv", "Gemm")


Sizes = Mapping[str, tuple[int, ...]]
Numbers = Mapping[str, NDArray[Any]]


class FloatTensor(NamedTuple):
    """A float initialiser, and which of its dimensions each own dimension is."""

    initializer: str
    dims: Mapping[int, int]


@dataclass(frozen=True)
class Followed:
    """What `follow` found.

    Attributes:
        origins: by initialiser of the quantised graph, and only of those that came from one.
        roots: by value, the initialiser that it is, quantised and back or as it stands.
    """

    origins: dict[str, FloatTensor] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, origin: FloatTensor) -> None:
        """Raises Refused for a tensor that came from two."""
        if self.origins.setdefault(name, origin) != origin:
            both = f"{self.origins[name].initializer} and {origin.initializer}"
            raise Refused(f"{name} is part of {both}", hint=INSTEAD)


def themselves(original: onnx.ModelProto) -> Followed:
    """Of a float graph: every initialiser is its own."""
    dims = {tensor.name: range(len(tensor.dims)) for tensor in original.graph.initializer}
    origins = {name: FloatTensor(name, {dim: dim for dim in own}) for name, own in dims.items()}
    return Followed(origins, {name: name for name in origins})


def follow(quantized: onnx.ModelProto, original: onnx.ModelProto) -> Followed:
    """Follow every initialiser of a graph in QDQ form to the float graph that it was made from.

    Args:
        quantized: with the nodes of `original` under their names, and weights as initialisers,
            quantised (int8, int32) or float before a QuantizeLinear.
    Raises:
        Refused: a node that reads an initialiser is not in the original, or reads one of another
            shape; or scales are given by blocks.
    """
    sizes = {tensor.name: tuple(tensor.dims) for tensor in quantized.graph.initializer}
    found = Followed(roots={name: name for name in sizes})
    quantising = [node for node in quantized.graph.node if node.op_type in _QUANTISING]
    for node in quantising:  # in the order of their execution
        if node.input[0] in found.roots:
            found.roots[node.output[0]] = found.roots[node.input[0]]
    names = Counter(node.name for node in original.graph.node)
    known = {node.name: node for node in original.graph.node if names[node.name] == 1}
    before = {tensor.name: tuple(tensor.dims) for tensor in original.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type not in _QUANTISING:
            _follow_node(node, known.get(node.name), found, sizes, before)
    for node in quantising:
        _follow_scales(node, found, sizes)
    return found


def _follow_node(
    node: onnx.NodeProto, own: onnx.NodeProto | None, found: Followed, sizes: Sizes, before: Sizes
) -> None:
    """The initialisers that a node reads are those that its own node reads in the float graph."""
    for place, value in enumerate(node.input):
        root = found.roots.get(value)
        if root is None:
            continue
        if own is None or own.op_type != node.op_type:
            raise Refused(f"{node.name} is no node of the float graph", hint=INSTEAD)
        name = own.input[place] if place < len(own.input) else ""
        if not name and place == 2 and node.op_type in _WITH_BIAS:
            found.add(root, _of_outputs(node, own))  # a correction that the float layer lacks
        elif before.get(name) != sizes[root]:
            raise Refused(f"{node.name}: {root} is not as large as {name!r}", hint=INSTEAD)
        else:
            found.add(root, FloatTensor(name, {dim: dim for dim in range(len(sizes[root]))}))


def _of_outputs(node: onnx.NodeProto, own: onnx.NodeProto) -> FloatTensor:
    """Of a bias: the outputs of the weight."""
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return FloatTensor(own.input[1], {0: 0 if node.op_type == "Conv" or turned else 1})


def _follow_scales(node: onnx.NodeProto, found: Followed, sizes: Sizes) -> None:
    """Scales and zero points for every channel are cut like the dimension that they belong to."""
    origin = found.origins.get(found.roots.get(node.input[0], ""))
    if origin is None:
        return
    given = {a.name: a.i for a in node.attribute}
    if given.get("block_size"):
        raise Refused(f"{node.name} has a scale for every block", hint=INSTEAD)
    shape = sizes[found.roots[node.input[0]]]
    axis = given.get("axis", 1) % max(1, len(shape))
    for name in node.input[1:]:
        if axis in origin.dims and sizes.get(name) == (shape[axis],):
            found.add(name, FloatTensor(origin.initializer, {0: origin.dims[axis]}))
        elif np.prod(sizes.get(name, ())) != 1:
            raise Refused(f"{node.name}: {name} is not one number a channel", hint=INSTEAD)


def scales_of(quantized: onnx.ModelProto) -> Numbers:
    """Scales and zero points by name."""
    quantising = (node for node in quantized.graph.node if node.op_type in _QUANTISING)
    names = {name for node in quantising for name in node.input[1:]}
    tensors = (tensor for tensor in quantized.graph.initializer if tensor.name in names)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}


def scaled(values: NDArray[Any], factor: float) -> NDArray[Any]:
    """Multiplied, whole numbers rounded and kept in their range."""
    if values.dtype.kind == "f":
        return (values * factor).astype(values.dtype)
    limits = np.iinfo(values.dtype)
    return np.clip(np.rint(values * factor), limits.min, limits.max).astype(values.dtype)


def join_pairs(graph: onnx.GraphProto, numbers: Numbers) -> dict[str, float]:
    """Where a sum between two quantised values has gone, quantise once, in place.

        Quantize ▶ Dequantize ▶ (sum) ▶ Quantize ▶ Dequantize ▶ Conv

    onnxruntime has no kernel for two pairs in a row. One goes, but not one that is a ReLU too where
    the other is none: the first, if nothing else reads it, or else the second.

    Args:
        numbers: scales and zero points by name.
    Returns:
        what quantised biases behind the second, and their scales, are to be multiplied by: a
        kernel takes them only in units of its input times its weights.
    """
    made = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    fixed, instead = {value.name for value in graph.output}, dict[str, str]()
    factors: dict[str, float] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        first = _quantised_before(node, made)
        if first is None:
            continue
        rectify = [_is_relu(one, numbers) for one in (first, node)]
        after = [one for one in graph.node if node.output[0] in one.input]
        if readers[node.input[0]] == 1 and rectify != [True, False]:
            node.input[0] = first.input[0]
        elif rectify != [False, True] and not fixed.intersection(one.output[0] for one in after):
            instead.update({one.output[0]: node.input[0] for one in after})
            readers[node.input[0]] += sum(readers[one.output[0]] for one in after) - 1
            ratio = float(numbers[first.input[1]].item() / numbers[node.input[1]].item())
            values = {one.output[0] for one in after}
            factors |= _of_biases(graph, values, made, ratio)
    return factors


def _quantised_before(
    node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto]
) -> onnx.NodeProto | None:
    """The QuantizeLinear whose values a QuantizeLinear quantises again, if it does."""
    quantize, dequantize = _QUANTISING
    back = made.get(node.input[0]) if node.op_type == quantize else None
    before = made.get(back.input[0]) if back and back.op_type == dequantize else None
    return before if before and before.op_type == quantize else None


def _is_relu(node: onnx.NodeProto, numbers: Numbers) -> bool:
    """Whether a QuantizeLinear lets nothing below zero through."""
    zero = numbers.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
    return bool(zero is not None and zero.size and (zero == np.iinfo(zero.dtype).min).all())


def _of_biases(
    graph: onnx.GraphProto,
    values: Collection[str],
    made: Mapping[str, onnx.NodeProto],
    ratio: float,
) -> dict[str, float]:
    """Factors of the quantised biases of layers that read `values`, and of their scales."""
    found = {}
    for node in graph.node:
        bias = made.get(node.input[2]) if node.op_type in _WITH_BIAS and node.input[2:] else None
        if node.input[0] in values and bias is not None and bias.op_type == _QUANTISING[1]:
            found[bias.input[0]], found[bias.input[1]] = 1 / ratio, ratio
    return found

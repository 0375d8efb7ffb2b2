"""Take out of a graph what only adds zeros: a branch that has gone, and all that led to it.

x ─▶ Shape ─▶ Expand 0 ─▶ Add ─▶ y          x ─▶ y
└──────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

Shapes = Mapping[str, Sequence[int | str]]
"""Sizes of values by name; a text for one that is free."""

_OF_FIRST = frozenset(
    {"Identity", "Relu", "LeakyRelu", "Elu", "Selu", "Gelu", "HardSwish", "Mish", "Tanh", "Erf",
     "Abs", "Neg", "Sqrt", "Cast", "CastLike", "Dropout", "Reshape", "Flatten", "Transpose",
     "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Expand", "Tile", "MaxPool", "AveragePool",
     "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "Div",
     "QuantizeLinear", "DequantizeLinear"}  # every range holds 0
)  # fmt: skip
_OF_ANY, _OF_ALL = frozenset({"Mul", "MatMul"}), frozenset({"Add", "Sub", "Concat"})


def remove_zeros(
    proto: onnx.ModelProto, zeros: Iterable[str] = (), shapes: Shapes | None = None
) -> None:
    """Remove additions of zeros, and every node and initialiser that nothing then reads, in place.

    Args:
        zeros: values that are zeros although the graph does not show it.
        shapes: by name; absent: what the graph says. A sum is taken out only where it is as large
            as what is left of it.
    """
    graph = proto.graph
    if any(a.type in (a.GRAPH, a.GRAPHS) for node in graph.node for a in node.attribute):
        return  # graphs within graphs read values by name
    zero = _zeros(graph, set(zeros))
    if shapes is None and zero:
        shapes = shapes_of(onnx.shape_inference.infer_shapes(proto))
    if _skip_sums(graph, zero, shapes or {}):
        remove_unread(graph)


def shapes_of(proto: onnx.ModelProto) -> dict[str, list[int | str]]:
    """What a graph says of its values; those of unknown size are left out."""
    found = {}
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
        dims = value.type.tensor_type.shape.dim
        sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims]
        if "" not in sizes:
            found[value.name] = sizes
    return found


def _zeros(graph: onnx.GraphProto, known: set[str]) -> set[str]:
    """Names of values that are zeros, `known` ones and what is made of them."""
    numbers = {t.name: t for t in graph.initializer if len(t.dims) == 0 or list(t.dims) == [1]}
    found = set(known)
    for node in graph.node:  # in the order of their execution
        if _makes_zeros(node, found, numbers):
            found.update(node.output)
    return found


def _makes_zeros(
    node: onnx.NodeProto, zero: Collection[str], numbers: Mapping[str, onnx.TensorProto]
) -> bool:
    read = [name for name in node.input if name]
    if node.op_type == "ConstantOfShape":
        return not any(numpy_helper.to_array(a.t).any() for a in node.attribute)
    if node.op_type == "Expand" and read[0] in numbers:
        return not _number(numbers[read[0]])
    if node.op_type == "Clip":
        low, high = (_number(numbers[n]) if n in numbers else None for n in _padded(read, 3)[1:])
        return read[0] in zero and (low is None or low <= 0) and (high is None or high >= 0)
    if node.op_type in _OF_FIRST:
        return read[0] in zero
    if node.op_type in _OF_ANY:
        return any(name in zero for name in read)
    return node.op_type in _OF_ALL and all(name in zero for name in read)


def _padded(names: list[str], length: int) -> list[str]:
    return [*names, *[""] * length][:length]


def _number(tensor: onnx.TensorProto) -> float:
    return float(np.asarray(numpy_helper.to_array(tensor)).reshape(-1)[0])


def _skip_sums(graph: onnx.GraphProto, zero: Collection[str], shapes: Shapes) -> bool:
    """Let whoever reads a sum with zeros read what is left of it; whether there was any.

    Of a ReLU that then follows another nothing is left either.
    """
    instead: dict[str, str] = {}
    rectified: set[str] = set()
    outputs, found = {value.name for value in graph.output}, False
    for node in graph.node:
        of_sum = bool(node.input) and node.input[0] in instead
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        if node.op_type == "Relu":
            if of_sum and node.input[0] in rectified and node.output[0] not in outputs:
                instead[node.output[0]] = node.input[0]
            else:
                rectified.add(node.output[0])
        left = [name for name in node.input if name not in zero]
        if node.op_type != "Add" or len(left) != 1:
            continue
        result, known = node.output[0], shapes.get(left[0])
        if known is None or known != shapes.get(result):
            continue
        found = True
        if result in outputs:  # its name has to stay
            node.op_type = "Identity"
            del node.input[:]
            node.input.append(left[0])
        else:
            instead[result] = left[0]
    return found


def remove_unread(graph: onnx.GraphProto) -> None:
    """Remove, in place, nodes whose results reach no output, and initialisers that none reads."""
    read = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            read.update(node.input)
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del graph.node[:]
    graph.node.extend(kept)
    left = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(left) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in left]
        del graph.initializer[:]
        graph.initializer.extend(copies)
    made = {name for node in graph.node for name in node.output}
    for value in [value for value in graph.value_info if value.name not in made]:
        graph.value_info.remove(value)

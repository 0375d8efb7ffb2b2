"""A float graph in the words for which onnxruntime has INT8 kernels. Loaded by path in the child.

Exporters write a global average as a ReduceMean, which has no INT8 kernel: the values around it
are converted to float and back. A hard swish has none either; a product has, and its other factor
is a hard sigmoid. Both are the same function, so the graph computes what it did.
"""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

_RANKS = {4: [2, 3]}  # of images (N, C, H, W): the axes that a global average takes


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and _is_global_average(model, node, constants):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    nodes = [part for node in model.graph.node for part in _expanded(model, node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _is_global_average(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> bool:
    """Whether it takes the mean over height and width and keeps both as 1."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rank = _rank(model, node.input[0])
    if rank not in _RANKS or not attributes.get("keepdims", 1):
        return False
    axes = attributes.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]])
    return axes is not None and sorted(int(axis) % rank for axis in axes) == _RANKS[rank]


def _rank(model: onnx.ModelProto, name: str) -> int:
    values = [*model.graph.value_info, *model.graph.input]
    return next((len(v.type.tensor_type.shape.dim) for v in values if v.name == name), 0)


def _expanded(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A hard swish as x times hard sigmoid of x; any other node as it is."""
    if node.op_type != "HardSwish":
        return [node]
    x, y, gate = node.input[0], node.output[0], f"{node.output[0]}_gate"
    known = [v for v in model.graph.value_info if v.name == x]
    if known:
        value = onnx.ValueInfoProto()
        value.CopyFrom(known[0])
        value.name = gate
        model.graph.value_info.append(value)
    sigmoid = helper.make_node("HardSigmoid", [x], [gate], f"{node.name}_gate")
    sigmoid.attribute.append(helper.make_attribute("alpha", 1 / 6))
    sigmoid.attribute.append(helper.make_attribute("beta", 0.5))
    return [sigmoid, helper.make_node("Mul", [x, gate], [y], node.name)]

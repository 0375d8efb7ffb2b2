"""A float32 graph made float16 by onnxruntime's converter. Loaded by path in the child process.

Input and output stay float32, so that a caller need not know. Operators that the converter knows to
have no float16 kernel, and nodes that are named, compute in float32 between casts.
"""

from __future__ import annotations

import logging

import onnx


def prepared(path: str) -> onnx.ModelProto:
    """The file in one piece with shapes inferred, its constants as the converter needs them."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    for node in model.graph.node:
        _with_tensor(node)
    return model


def _with_tensor(node: onnx.NodeProto) -> None:
    """A Constant of plain floats as one that holds a tensor, which alone the converter converts."""
    for attribute in node.attribute:
        if node.op_type != "Constant" or attribute.name not in ("value_float", "value_floats"):
            continue
        one = attribute.name == "value_float"
        values = [attribute.f] if one else list(attribute.floats)
        sizes = [] if one else [len(values)]
        tensor = onnx.helper.make_tensor(node.output[0], onnx.TensorProto.FLOAT, sizes, values)
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def halved(
    model: onnx.ModelProto, operators: list[str], exclude: list[str]
) -> tuple[bytes, list[str]]:
    """The graph with weights and arithmetic in float16; weights beyond its range are clamped to it.

    Args:
        operators: types of nodes that stay float32 besides those that the converter leaves so.
        exclude: names of nodes that stay float32.
    Returns:
        the graph, and the names of the nodes that stayed float32.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    logging.disable(logging.WARNING)
    blocked = [*DEFAULT_OP_BLOCK_LIST, *operators]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made = convert_float_to_float16(
        copy,
        keep_io_types=True,
        disable_shape_infer=True,  # `prepared` has
        op_block_list=blocked,
        node_block_list=exclude,
    )
    _without_round_trips(made.graph, {node.name for node in model.graph.node})
    ordered = ONNXModel(made)
    ordered.topological_sort()  # the cast of the input stands at the end
    stayed = [n.name for n in model.graph.node if n.op_type in blocked or n.name in exclude]
    return ordered.model.SerializeToString(deterministic=True), stayed


def _without_round_trips(graph: onnx.GraphProto, own: set[str]) -> None:
    """Take out float32 → float16 → float32: the converter puts it between any two nodes that stay
    float32, and a value that is too large for float16 is infinite after it.

    Args:
        own: names of the network's nodes; a Cast among them may begin at whole numbers.
    """
    down = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast" and node.name not in own and _to(node) == onnx.TensorProto.FLOAT16
    }
    ends = {value.name for value in graph.output}
    around = {}
    for node in graph.node:
        if (
            node.op_type != "Cast"
            or _to(node) != onnx.TensorProto.FLOAT
            or node.input[0] not in down
        ):
            continue
        node.input[0] = down[node.input[0]]
        if node.output[0] in ends:  # a name that callers know
            node.op_type = "Identity"
            del node.attribute[:]
        else:
            around[node.output[0]] = node.input[0]
    for node in graph.node:
        node.input[:] = [around.get(name, name) for name in node.input]
    _remove_unread(graph, [*around, *down])


def _remove_unread(graph: onnx.GraphProto, names: list[str]) -> None:
    """Nodes that give one of these values where nothing reads it."""
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}
    unread = set(names) - read
    kept = [node for node in graph.node if node.output[0] not in unread]
    del graph.node[:]
    graph.node.extend(kept)


def _to(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)

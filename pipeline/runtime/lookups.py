"""Hard sigmoids of a Q/DQ graph as changes of scale. Loaded by path in the child.

onnxruntime has no INT8 kernel for a hard sigmoid: it converts to float and back. But max(0, min(1,
a x + b)) in 8 bits is a change of scale: quantised at 1 / (255 a) around 255 b, x saturates at both
ends, and read at 1/255 the number is the result. A leaky ReLU of slope 1 between the two is the
identity, and there is a table look-up for it in INT8.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_TOP = 255  # steps of 8 bits


def with_lookups(data: bytes) -> bytes:
    """The graph without hard sigmoids, but for those that are read in float."""
    if b"HardSigmoid" not in data:
        return data
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    quantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    zeros = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "HardSigmoid"]:
        after = readers.get(node.output[0], [])
        if node.input[0] in quantised and [one.op_type for one in after] == ["QuantizeLinear"]:
            zero = zeros[after[0].input[2]]
            _replace(graph, node, after[0], readers[after[0].output[0]], zero)
    return model.SerializeToString(deterministic=True)


def _replace(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    quantize: onnx.NodeProto,
    dequantize: list[onnx.NodeProto],
    zero: np.ndarray,
) -> None:
    """A leaky ReLU for the hard sigmoid, quantised at one scale and read at another."""
    known = {a.name: a.f for a in node.attribute}
    alpha, beta = known.get("alpha", 0.2), known.get("beta", 0.5)
    lowest = np.iinfo(zero.dtype).min
    constants = {
        "in_scale": np.float32(1 / (_TOP * alpha)),
        "in_zero": np.array(lowest + np.clip(np.rint(_TOP * beta), 0, _TOP), zero.dtype),
        "out_scale": np.float32(1 / _TOP),
        "out_zero": np.array(lowest, zero.dtype),
    }
    names = {key: f"{node.name}_{key}" for key in constants}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), names[key]) for key, value in constants.items()
    )
    node.op_type = "LeakyRelu"
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("alpha", 1.0))
    quantize.input[1], quantize.input[2] = names["in_scale"], names["in_zero"]
    for reader in dequantize:
        reader.input[1], reader.input[2] = names["out_scale"], names["out_zero"]

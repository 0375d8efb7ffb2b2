"""Small ONNX graphs made to be timed: one convolution shape, repeated."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def conv_chain(
    channels: int, size: int, *, kernel: int = 3, depthwise: bool = False, repeat: int = 4
) -> bytes:
    """`repeat` equal convolutions with ReLU, then a global mean: a serialised ONNX graph.

    Input (batch, channels, size, size) float32, output (batch, channels, 1, 1); same padding.
    """
    generator = np.random.default_rng(0)
    group = channels if depthwise else 1
    shape = (channels, channels // group, kernel, kernel)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    for index in range(repeat):
        nodes += _conv_relu(index, group, kernel)
        # Scaled by fan-in, so that no activation grows to infinity or shrinks to denormals.
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{index}"))
        weights.append(numpy_helper.from_array(np.zeros(channels, np.float32), f"b{index}"))
    nodes.append(helper.make_node("GlobalAveragePool", [f"r{repeat - 1}"], ["logits"]))
    return _serialised(nodes, weights, channels, size)


def _conv_relu(index: int, group: int, kernel: int) -> list[NodeProto]:
    before = f"r{index - 1}" if index else "input"
    conv = helper.make_node(
        "Conv",
        [before, f"w{index}", f"b{index}"],
        [f"c{index}"],
        name=f"conv{index}",
        group=group,
        pads=[kernel // 2] * 4,
    )
    return [conv, helper.make_node("Relu", [f"c{index}"], [f"r{index}"])]


def _serialised(
    nodes: list[NodeProto], weights: list[TensorProto], channels: int, size: int
) -> bytes:
    given: list[str | int | None] = ["batch", channels, size, size]
    made: list[str | int | None] = ["batch", channels, 1, 1]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, made)],
        weights,
    )
    # what any onnxruntime since 1.12 reads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def conv_chain_macs(
    channels: int, size: int, *, kernel: int = 3, depthwise: bool = False, repeat: int = 4
) -> int:
    """Multiply-accumulates of `conv_chain` for one image."""
    inputs = 1 if depthwise else channels
    return repeat * channels * inputs * kernel * kernel * size * size

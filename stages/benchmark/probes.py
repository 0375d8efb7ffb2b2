"""Small ONNX graphs made to be timed: one convolution shape, repeated."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def conv_chain(
    channels: int, size: int, *, kernel: int = 3, depthwise: bool = False, repeat: int = 4
) -> bytes:
    """A chain of `repeat` equal convolutions with ReLU: (batch, channels, size, size) float32,
    same padding.
    """
    generator = np.random.default_rng(0)
    group = channels if depthwise else 1
    nodes, weights, value = [], [], "input"
    for index in range(repeat):
        shape = (channels, channels // group, kernel, kernel)
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{index}"))
        weights.append(numpy_helper.from_array(np.zeros(channels, np.float32), f"b{index}"))
        pads = [kernel // 2] * 4
        inputs, name = [value, f"w{index}", f"b{index}"], f"conv{index}"
        nodes.append(
            helper.make_node("Conv", inputs, [f"c{index}"], name=name, group=group, pads=pads)
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        value = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["logits"]))
    sizes: list[str | int | None] = ["batch", channels, size, size]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", channels, 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def conv_chain_macs(
    channels: int, size: int, *, kernel: int = 3, depthwise: bool = False, repeat: int = 4
) -> int:
    """Multiply-accumulates of `conv_chain` for one image."""
    inputs = 1 if depthwise else channels
    return repeat * channels * inputs * kernel * kernel * size * size

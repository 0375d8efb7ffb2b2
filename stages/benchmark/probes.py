"""Small ONNX graphs made to be timed: one convolution shape, repeated."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_ACTIVATION = 4 / 255  # a step of the activations: nearly all are below 4
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def conv_chain(
    channels: int,
    size: int,
    *,
    kernel: int = 3,
    depthwise: bool = False,
    repeat: int = 4,
    int8: bool = False,
) -> bytes:
    """`repeat` equal convolutions with ReLU, then a global mean: a serialised ONNX graph.

    Input (batch, channels, size, size) float32, output (batch, channels, 1, 1); same padding.

    Args:
        int8: in QDQ form, activations uint8, weights int8 with a scale for every channel.
    """
    generator = np.random.default_rng(0)
    group = channels if depthwise else 1
    shape = (channels, channels // group, kernel, kernel)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    for index in range(repeat):
        # Scaled by fan-in, so that no activation grows to infinity or shrinks to denormals.
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        arrays = _quantised(values, index) if int8 else _floats(values, index)
        weights += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        nodes += (_quantised_conv if int8 else _conv_relu)(index, group, kernel)
    if int8:
        nodes = [*_pair("input", "r", "x"), *nodes]
        scales = {"r_scale": np.float32(_ACTIVATION), "r_zero": np.uint8(0)}
        weights += [numpy_helper.from_array(np.asarray(one), name) for name, one in scales.items()]
    last = f"x{repeat - 1}" if int8 else f"r{repeat - 1}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["logits"]))
    return _serialised(nodes, weights, channels, size)


def _floats(values: np.ndarray, index: int) -> dict[str, np.ndarray]:
    """Weight and bias of a layer."""
    return {f"w{index}": values.astype(np.float32), f"b{index}": np.zeros(len(values), np.float32)}


def _quantised(values: np.ndarray, index: int) -> dict[str, np.ndarray]:
    """The same in int8 and int32, with scales and zero points for every channel."""
    scale = np.abs(values).reshape(len(values), -1).max(axis=1) / 127
    small = np.rint(values / scale[:, None, None, None]).astype(np.int8)
    zeros = np.zeros(len(values), np.int8)
    weight, bias = f"w{index}", f"b{index}"
    return {
        weight: small,
        f"{weight}_scale": scale.astype(np.float32),
        f"{weight}_zero": zeros,
        bias: zeros.astype(np.int32),
        f"{bias}_scale": (scale * _ACTIVATION).astype(np.float32),
        f"{bias}_zero": zeros.astype(np.int32),
    }


def _pair(value: str, scales: str, result: str) -> list[NodeProto]:
    """Quantise and back."""
    given = [f"{scales}_scale", f"{scales}_zero"]
    return [
        helper.make_node(_Q, [value, *given], [f"{value}_q"]),
        helper.make_node(_DQ, [f"{value}_q", *given], [result]),
    ]


def _quantised_conv(index: int, group: int, kernel: int) -> list[NodeProto]:
    """Its ReLU is what quantising to [0, …] does."""
    before, names = f"x{index - 1}" if index else "x", (f"w{index}", f"b{index}")
    back = [
        helper.make_node(_DQ, [n, f"{n}_scale", f"{n}_zero"], [f"{n}_float"], axis=0) for n in names
    ]
    conv = helper.make_node(
        "Conv",
        [before, *(f"{name}_float" for name in names)],
        [f"c{index}"],
        name=f"conv{index}",
        group=group,
        pads=[kernel // 2] * 4,
    )
    return [*back, conv, *_pair(f"c{index}", "r", f"x{index}")]


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

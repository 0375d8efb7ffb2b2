"""Whether 8-bit kernels overflow here. Loaded by path in the child process."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def saturates(activation: str, weight: str) -> bool:
    """Whether products of 8-bit numbers overflow 16 bits in onnxruntime's kernel for these types.

    Without VNNI (x86) a pair of products is summed in 16 bits. Asked of a convolution of 64
    channels whose result is known.
    """
    import onnxruntime as ort

    model, expected = _extreme_convolution(activation, weight)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {"x": np.full((1, 64, 4, 4), 1.0, np.float32)})[0]
    return bool(np.abs(found - expected).max() > 0.02 * abs(expected))


def _extreme_convolution(activation: str, weight: str) -> tuple[onnx.ModelProto, float]:
    """A quantised 1x1 convolution of ones whose activations and weights are the largest there are,
    and what it gives.
    """
    kinds = {"int8": (np.int8, 0, 127), "uint8": (np.uint8, 128, 255)}
    x_kind, x_zero, x_top = (np.uint8, 0, 255) if activation == "uint8" else kinds["int8"]
    w_kind, w_zero, w_top = kinds[weight]
    arrays = {
        "xs": np.float32(1 / (x_top - x_zero)),
        "xz": x_kind(x_zero),
        "w": np.full((64, 64, 1, 1), w_top, w_kind),
        "ws": np.float32(1 / (w_top - w_zero)),
        "wz": w_kind(w_zero),
        "ys": np.float32(64 / (x_top - x_zero)),
    }
    nodes = [
        helper.make_node(_Q, ["x", "xs", "xz"], ["xq"]),
        helper.make_node(_DQ, ["xq", "xs", "xz"], ["xd"]),
        helper.make_node(_DQ, ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"]),
        helper.make_node(_Q, ["y", "ys", "xz"], ["yq"]),
        helper.make_node(_DQ, ["yq", "ys", "xz"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "extreme",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64, 4, 4])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 64, 4, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), 64.0

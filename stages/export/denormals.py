"""Denormal weights: too small for the normal float format, and ten times slower on many CPUs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


def count_denormals(proto: onnx.ModelProto) -> int:
    """Weights that are not zero but smaller than the smallest normal number of their type."""
    return sum(
        int(_denormal(numpy_helper.to_array(tensor)).sum()) for tensor in _float_tensors(proto)
    )


def flush_denormals(proto: onnx.ModelProto) -> int:
    """Set denormal weights to zero, in place. Returns how many there were."""
    flushed = 0
    for tensor in _float_tensors(proto):
        values = numpy_helper.to_array(tensor)
        tiny = _denormal(values)
        count = int(tiny.sum())
        if count:
            clean = np.where(tiny, values.dtype.type(0), values)  # a plain 0 would widen float16
            tensor.CopyFrom(numpy_helper.from_array(clean, tensor.name))
            flushed += count
    return flushed


def _float_tensors(proto: onnx.ModelProto) -> list[TensorProto]:
    constants = [
        attribute.t
        for node in proto.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    tensors = [*proto.graph.initializer, *constants]
    return [tensor for tensor in tensors if tensor.data_type in _FLOATS]


def _denormal(values: np.ndarray) -> np.ndarray:
    return (values != 0) & (np.abs(values) < np.finfo(values.dtype).tiny)

"""Other scales for a graph that is quantised already. Loaded by path in the child process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def rescale(
    made: onnx.ModelProto, original: onnx.ModelProto, ranges: dict[str, list[float]]
) -> bool:
    """Give a graph that was quantised the scales of other ranges, by the quantiser's formulas.

    The weights stay, which are what takes the quantiser its time. False where that cannot be
    done: a bias would not fit its 32 bits, for which the quantiser changes the weights as well, or
    has a name of its own.
    """
    from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    floats = {t.name: numpy_helper.to_array(t) for t in original.graph.initializer}
    found: dict[str, np.ndarray] = {}
    for node in made.graph.node:
        # of several that share a scale, the first gives it: a pooling has that of its input
        if node.op_type == _Q and node.input[1] not in found:
            pair = (np.array(value, np.float32) for value in ranges[original_name(node.input[0])])
            limits = get_qmin_qmax_for_qType(tensors[node.input[2]].data_type)
            zero, scale = compute_scale_zp(*pair, *limits)
            found |= {node.input[1]: scale, node.input[2]: zero}
    for bias in _biases(made, tensors, found):
        values = floats.get(bias.name)
        if values is None:
            return False
        integers = (values.astype(np.float64) / bias.scale.astype(np.float64)).round()
        if np.abs(integers).max(initial=0) > np.iinfo(np.int32).max:
            return False
        found |= {bias.integers: integers, bias.scales: bias.scale}
    for name, values in found.items():
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensors[name].data_type)
        shaped = np.asarray(values).astype(kind).reshape(tensors[name].dims)
        tensors[name].CopyFrom(numpy_helper.from_array(shaped, name))
    return True


class _Bias(NamedTuple):
    """A quantised bias: its name in the float graph, its initialisers' names, its new scale."""

    name: str
    integers: str
    scales: str
    scale: np.ndarray


def _biases(
    made: onnx.ModelProto, tensors: dict[str, onnx.TensorProto], scales: dict[str, np.ndarray]
) -> Iterator[_Bias]:
    """Those of all convolutions and linear layers: a bias has the scale of the products."""
    from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX

    makers = {node.output[0]: node for node in made.graph.node if node.op_type == _DQ}
    for node in made.graph.node:
        sources = [makers[name] for name in node.input if name in makers]
        if len(sources) != 3 or sources[2].input[0] not in tensors:
            continue
        x, weight, bias = (source.input for source in sources)
        scale = scales[x[1]] * numpy_helper.to_array(tensors[weight[1]])
        yield _Bias(bias[0].removesuffix(TENSOR_NAME_QUANT_SUFFIX), bias[0], bias[1], scale)


def original_name(name: str) -> str:
    """Of a value that was renamed, for the last node keeps the name of the graph's output."""
    from onnxruntime.quantization.quant_utils import add_quant_input_suffix

    return name.removesuffix(add_quant_input_suffix(""))


def scaled(model: onnx.ModelProto) -> list[str]:
    """Activations that a QuantizeLinear reads, by their names in the float graph."""
    read = {node.input[0] for node in model.graph.node if node.op_type == _Q}
    return sorted(original_name(name) for name in read)

"""A float graph made INT8 with onnxruntime's own tools. Loaded by path in the child process.

`prepare` a file, or `load` a prepared graph; then `quantize` it, as often as there are schemes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from typing import Any

import numpy as np
import onnx
from onnx import helper

# a view of another tensor, or arithmetic on sizes: costs next to nothing in either precision
_FREE = (
    *("Cast", "Constant", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_QUANTISED = (_Q, _DQ, "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_LOWEST_OPSET = 13  # the first whose QuantizeLinear takes a scale for each channel

Ranges = dict[str, list[float]]


class Quantization:
    """One prepared float graph, and INT8 graphs made of it.

    Args:
        rescaling: the module of that name, which lies beside this one.
    """

    def __init__(self, rescaling: Any) -> None:
        self._rescaling = rescaling
        self.model = onnx.ModelProto()
        self._made, self._made_how = onnx.ModelProto(), {"nothing": "yet"}

    def prepare(self, path: str) -> bytes:
        """The file with shapes inferred and batch norms folded, in one piece, ready for `load`.

        Raises:
            ValueError: it is quantised already, is no float32 network, or its data lie elsewhere.
        """
        original = onnx.load(path)
        _require_float(original)
        if _opset(original) < _LOWEST_OPSET:
            original = onnx.version_converter.convert_version(original, _LOWEST_OPSET)
        model = _preprocessed(original)
        model.ir_version = original.ir_version
        _only_used_domains(model, _opset(original))
        _name_nodes(model.graph)
        _set_metadata(model, {entry.key: entry.value for entry in original.metadata_props})
        self.model = model
        return model.SerializeToString(deterministic=True)

    def hold(self, model: onnx.ModelProto) -> None:
        """Take a float graph with shapes as it is, and name its nodes.

        Raises:
            ValueError: it is quantised or float16 already, or no float32 network.
        """
        _require_float(model)
        if any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer):
            raise ValueError("it has float16 weights already")
        _name_nodes(model.graph)
        self._made_how, self.model = {}, model

    def load(self, model: bytes) -> None:
        """Take another float graph in the place of the prepared one."""
        self._made_how = {}
        self.model = onnx.ModelProto.FromString(model)

    def quantize(self, request: dict) -> tuple[bytes, dict]:
        """The graph with Q/DQ nodes by `onnxruntime.quantization.QDQQuantizer`.

        Args:
            request: activation, weight ("int8" or "uint8"), per_channel, reduce_range, operators
                (types that are quantised), exclude (names of nodes that are not), ranges of the
                activations (None: all of them -1 … 1, for a graph that is only timed).
        Returns:
            the graph, the tensors that got a scale, and the nodes that stayed float.
        """
        ranges = request["ranges"]
        how = {key: value for key, value in request.items() if key != "ranges"}
        known = ranges is not None and how == self._made_how
        if not known:
            self._made, self._made_how = self._quantized(request), how
        if ranges is not None:
            _require_ranges(self._rescaling.scaled(self._made), ranges)
            # also of a new one, so that its bytes do not tell what was made before it
            if not self._rescaling.rescale(self._made, self.model, ranges) and known:
                self._made = self._quantized(request)
        return self._made.SerializeToString(deterministic=True), {
            "tensors": self._rescaling.scaled(self._made),
            "float_nodes": _float_nodes(self._made, request["operators"], request["exclude"]),
        }

    def _quantized(self, request: dict) -> onnx.ModelProto:
        from onnxruntime.quantization import QDQQuantizer, QuantType

        types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        # the quantizer looks up what it then leaves out: the value before a ReLU that goes
        ranges = {name: [-1.0, 1.0] for name in _float_tensors(model)} | (request["ranges"] or {})
        _mark_inferred(model)  # else it would infer the shapes once more, on disk
        quantizer = QDQQuantizer(
            model,
            request["per_channel"],
            request["reduce_range"],
            types[request["weight"]],
            types[request["activation"]],
            _tensors_data(ranges),
            [],
            request["exclude"],
            request["operators"],
            # onnxruntime's per-channel kernels take one zero point for all channels
            {"WeightSymmetric": True},
        )
        logging.disable(logging.WARNING)
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # the new nodes stand at the end
        made = quantizer.model.model
        made.ir_version = self.model.ir_version
        _only_used_domains(made, _opset(self.model))
        _set_metadata(made, {entry.key: entry.value for entry in self.model.metadata_props})
        made.producer_name, made.producer_version = "onnxruntime.quantization", ""
        return made


def _require_float(model: onnx.ModelProto) -> None:
    """Raise unless this is a float32 network that nobody has quantised."""
    quantised = [
        node.op_type
        for node in model.graph.node
        if node.op_type in _QUANTISED or node.op_type.startswith("QLinear")
    ]
    if quantised:
        raise ValueError(f"it is quantised already: {len(quantised)} nodes such as {quantised[0]}")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    if kinds != [onnx.TensorProto.FLOAT]:
        named = ", ".join(onnx.TensorProto.DataType.Name(kind) for kind in kinds)
        raise ValueError(f"one float32 input of images is needed, it has {named or 'none'}")


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name those that have no name: nodes are left out by their names."""
    taken = {node.name for node in graph.node}
    for index, node in enumerate(graph.node):
        name = f"{node.op_type}_{index}"
        while name in taken:
            name += "_"
        node.name = node.name or name


def _preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="rlp-quantize-") as folder:
        before, after = (os.path.join(folder, f"{name}.onnx") for name in ("before", "after"))
        onnx.save(model, before)
        # its symbolic shapes are for transformers, and take sympy
        quant_pre_process(before, after, skip_symbolic_shape=True)
        return onnx.load(after)


def _opset(model: onnx.ModelProto) -> int:
    own = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return own[0] if own else 0


def _only_used_domains(model: onnx.ModelProto, opset: int) -> None:
    """Name no operator set that no node is of: another runtime may not know it."""
    used = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    own = helper.make_opsetid("", opset)
    del model.opset_import[:]
    model.opset_import.extend([own, *kept])


def _set_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    del model.metadata_props[:]
    for key in sorted(metadata):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, metadata[key]


def _mark_inferred(model: onnx.ModelProto) -> None:
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    add_infer_metadata(model)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of all activations."""
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return [v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]


def _tensors_data(ranges: Ranges) -> Any:
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    pairs = {name: tuple(np.array(v, np.float32) for v in pair) for name, pair in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, pairs)


def _require_ranges(tensors: list[str], ranges: Ranges) -> None:
    unknown = set(tensors) - set(ranges)
    if unknown:
        raise ValueError(f"no range was taken of {min(unknown)}")


def _float_nodes(model: onnx.ModelProto, operators: list[str], exclude: list[str]) -> list[str]:
    """Names of the nodes that compute and not in INT8: of other types, left out, not reached."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == _DQ}
    return [
        node.name
        for node in model.graph.node
        if node.op_type not in (*_FREE, _Q, _DQ)
        and (
            node.op_type not in operators
            or node.name in exclude
            or not dequantised.intersection(node.input)
        )
    ]

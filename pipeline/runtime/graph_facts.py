"""Facts read off the graph of an ONNX file: layers, channels, MACs, denormal weights.

Loaded by path in the child process. The file may be anybody's, so its MACs are counted here, on its
own nodes, and not by `pipeline.channels`, which knows the networks that were traced.
"""
# MACs are counted here once more, beside pipeline.channels.costs, because `rlp bench` compares any
# two ONNX files: of a foreign one there is no channel graph. A test holds the two counts together.

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx

# what multiplies, by the float operator that it does the work of, and which input is its weight
_HEAVY = {
    "Conv": ("Conv", 1),
    "ConvTranspose": ("ConvTranspose", 1),
    "Gemm": ("Gemm", 1),
    "MatMul": ("MatMul", 1),
    "ConvInteger": ("Conv", 1),
    "MatMulInteger": ("MatMul", 1),
    "QLinearConv": ("Conv", 3),
    "QLinearMatMul": ("MatMul", 3),
    "QGemm": ("Gemm", 3),
}
_QUANTISED = {onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "uint8"}
_SEVEN_BITS = 64  # the largest weight under `reduce_range`
# what onnxruntime may fuse into the node before it
_FUSED_AFTER = (
    "Relu",
    "Clip",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Add",
    "Mul",
)
_SAME_SIZES = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity")
_LONGEST_CHAIN = 6  # of nodes that are fused into one


def scan(path: str, shape: Any, sizes: Any) -> dict[str, Any]:
    """Weights, denormals among them, opsets, nodes, layers and MACs of one image, and the types
    it is quantised to.

    Args:
        shape: sizes after the batch, for files that leave them open.
        sizes: the module beside this one that fills them in.
    Raises:
        ValueError: a tensor's external data lie outside the file's own folder.
    """
    proto = onnx.load(path, load_external_data=False)  # `_check_external` sees the paths first
    folder = os.path.dirname(os.path.abspath(path))
    external = _external_bytes(proto, folder)  # before they are loaded, and known no more
    weights, denormals = _count_weights(proto, folder)
    given, images = _at_batch_1(proto, shape, sizes)
    layers = _layers(proto, _sizes(given))
    for layer in layers:
        layer["macs"] //= images
    return {
        "weights": weights,
        "denormals": denormals,
        "opsets": _opsets(proto),
        "nodes": len(proto.graph.node),
        "layers": layers,
        "quantization": _quantization(proto),
        "macs": sum(layer["macs"] for layer in layers),
        "halves": any(t.data_type == onnx.TensorProto.FLOAT16 for t in proto.graph.initializer),
        "weights_as_inputs": _weights_as_inputs(proto),
        "external_bytes": external,
    }


def _count_weights(proto: onnx.ModelProto, folder: str) -> tuple[int, int]:
    """Numbers in all constant tensors, and how many of them are denormal."""
    weights = denormals = 0
    for tensor in _constants(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, folder)
            onnx.external_data_helper.load_external_data_for_tensor(tensor, folder)
        values = onnx.numpy_helper.to_array(tensor)
        weights += values.size
        if values.dtype in (np.float32, np.float64):  # a half is converted before it is used
            tiny = np.abs(values) < np.finfo(values.dtype).tiny
            denormals += int(np.count_nonzero(tiny & (values != 0)))
    return weights, denormals


def _constants(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    tensors = list(proto.graph.initializer)
    return tensors + [a.t for node in proto.graph.node for a in node.attribute if a.HasField("t")]


def _quantization(proto: onnx.ModelProto) -> dict[str, Any]:
    """Integer types of activations and of weights, and whether the weights use 7 bits only."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    quantisers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    zeros = [tensors[name] for node in quantisers for name in node.input[2:] if name in tensors]
    weights = [
        tensor
        for tensor in tensors.values()
        if tensor.data_type in _QUANTISED and len(tensor.dims) > 1
    ]
    activations = {tensor.data_type for tensor in zeros} & _QUANTISED.keys()
    return {
        "activations": sorted(_QUANTISED[kind] for kind in activations),
        "weights": sorted({_QUANTISED[tensor.data_type] for tensor in weights}),
        "seven_bits": bool(weights) and all(map(_within_seven_bits, weights)),
    }


def _within_seven_bits(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != onnx.TensorProto.INT8:
        return False
    values = onnx.numpy_helper.to_array(tensor).astype(np.int16)
    return bool(np.abs(values).max(initial=0) <= _SEVEN_BITS)


def _opsets(proto: onnx.ModelProto) -> dict[str, int]:
    return {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}


def describe(path: str) -> dict[str, Any]:
    """What `rlp inspect` shows: opsets, operators counted, metadata, shapes of layers' weights.

    Raises:
        ValueError: the file parses and holds no nodes, as nearly any short file does.
    """
    proto = onnx.load(path, load_external_data=False)
    if not proto.graph.node:
        raise ValueError("an ONNX file without nodes")
    shapes = _constant_sizes(proto)
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    heavy = [node for node in proto.graph.node if node.op_type in _HEAVY]
    return {
        "opsets": _opsets(proto),
        "nodes": counts,
        "metadata": {entry.key: entry.value for entry in proto.metadata_props},
        "layers": [[node.name, shapes.get(_weight(node, shapes), [])] for node in heavy],
    }


def check_external_data(path: str) -> None:
    """Raise ValueError unless all external data of the file are plain files of its own folder."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in _constants(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, os.path.dirname(os.path.abspath(path)))


def _check_external(tensor: onnx.TensorProto, folder: str) -> None:
    """Raise unless the tensor's external data is a plain file inside `folder`."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    path = os.path.join(folder, location)
    inside = os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)
    if os.path.isabs(location) or ".." in location.split("/") or not inside or os.path.islink(path):
        raise ValueError(
            f"{tensor.name}: its data lie outside the file's own folder ({location!r})"
        )


def _weights_as_inputs(proto: onnx.ModelProto) -> int:
    """Weights that a caller may override, which the runtime therefore neither packs nor folds."""
    if proto.ir_version < 4:  # they had to be inputs then, and are constants all the same
        return 0
    return len({t.name for t in proto.graph.initializer} & {i.name for i in proto.graph.input})


def _external_bytes(proto: onnx.ModelProto, folder: str) -> int:
    """Size of the files beside it that hold its weights."""
    names = {
        entry.value
        for tensor in _constants(proto)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    paths = [os.path.join(folder, name) for name in names]
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def _layers(proto: onnx.ModelProto, sizes: dict[str, list[int]]) -> list[dict]:
    """One row for each node that multiplies: weight's name, channels, groups, MACs of one call.

    `values` are the names a runtime may call the node by after fusing what follows into it.
    """
    dims = _constant_sizes(proto)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    heavy = [node for node in proto.graph.node if node.op_type in _HEAVY]
    return [{**_layer(node, dims, sizes), "values": _followers(node, users)} for node in heavy]


def _constant_sizes(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Sizes of every constant, and of what is one but for a conversion or a transposition."""
    found = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:  # in the order in which they run
        attributes = {a.name: a for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            found[node.output[0]] = list(attributes["value"].t.dims)
        elif node.op_type in _SAME_SIZES and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in found:
            before = found[node.input[0]]
            order = attributes["perm"].ints if "perm" in attributes else range(len(before))[::-1]
            found[node.output[0]] = [before[axis] for axis in order]
    return found


def _weight(node: onnx.NodeProto, dims: dict[str, list[int]]) -> str:
    """The constant that the node multiplies by; empty where it multiplies two activations."""
    at = _HEAVY[node.op_type][1]
    return next((name for name in node.input[at : at + 1] if name in dims), "")


def _layer(
    node: onnx.NodeProto, dims: dict[str, list[int]], sizes: dict[str, list[int]]
) -> dict[str, Any]:
    weight, kind = _weight(node, dims), _HEAVY[node.op_type][0]
    w, out = dims.get(weight, []), sizes.get(node.output[0], [])
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    leaving, arriving = _channels(kind, w, attributes)
    return {
        "layer": _layer_name(weight) or node.name,
        "node": node.name,
        "op": node.op_type,
        "out": leaving,
        "in": arriving,
        "group": attributes.get("group", 1),
        "kernel": w[2:] if kind.startswith("Conv") else [],
        "macs": _macs(kind, node, w, out, sizes, leaving),
    }


def _layer_name(weight: str) -> str:
    """Of the module that the weight belongs to, also where onnxruntime has quantised it."""
    name = weight.removesuffix("_DequantizeLinear_Output").removesuffix("_quantized")
    return name.removesuffix("_transposed").removesuffix(".weight")


def _channels(op: str, w: list[int], attributes: dict[str, Any]) -> tuple[int, int]:
    """Channels that leave and that arrive, by the weight's sizes; 0 where it is no weight."""
    if len(w) < 2:
        return 0, 0
    group = attributes.get("group", 1)
    if op == "Conv":  # (out, in ÷ group, …)
        return w[0], w[1] * group
    if op == "ConvTranspose":  # (in, out ÷ group, …)
        return w[1] * group, w[0]
    if op == "Gemm" and attributes.get("transB"):  # (out, in)
        return w[0], w[1]
    return w[1], w[0]


def _macs(
    kind: str,
    node: onnx.NodeProto,
    w: list[int],
    out: list[int],
    sizes: dict[str, list[int]],
    leaving: int,
) -> int:
    """Multiply-accumulates at batch 1; 0 where a size is unknown."""
    if not w:  # two activations multiplied
        first = sizes.get(node.input[0], [])
        return int(np.prod(out)) * first[-1] if out and first else 0
    if kind == "ConvTranspose":
        return int(np.prod(w)) * int(np.prod(sizes.get(node.input[0], [0])[2:]))
    if not out:
        return int(np.prod(w)) if kind == "Gemm" else 0
    return int(np.prod(w)) // max(1, leaving) * int(np.prod(out))


def _followers(node: onnx.NodeProto, users: dict[str, list[onnx.NodeProto]]) -> list[str]:
    """The node's value, and those of the nodes after it that may be fused with it."""
    names = [node.output[0]]
    while len(names) < _LONGEST_CHAIN:
        after = [user for user in users.get(names[-1], []) if user.op_type in _FUSED_AFTER]
        if not after:
            break
        names.append(after[-1].output[0])
    return names


def _sizes(fixed: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of all values; those with an unknown size are left out."""
    try:
        fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)  # through Shape → Reshape
    except Exception:  # sizes are an extra; the runtime says what is wrong with a file
        return {}
    found = {}
    for value in [*fixed.graph.input, *fixed.graph.value_info, *fixed.graph.output]:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if all(sizes):  # protobuf gives 0 for a size that is not there
            found[value.name] = sizes
    return found


def _at_batch_1(proto: onnx.ModelProto, shape: Any, sizes: Any) -> tuple[onnx.ModelProto, int]:
    """A copy with free input sizes filled in and nothing said of other sizes, and the images of a
    call: more than one where the file fixes its batch.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    weights = {tensor.name for tensor in fixed.graph.initializer}
    images = 0
    for value in fixed.graph.input:
        if value.name in weights:
            continue
        dims = value.type.tensor_type.shape.dim
        named = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims
        ]
        images = images or sizes.images_a_call(named) or 1
        for dim, size in zip(dims, sizes.filled(value.name, named, 1, shape), strict=True):
            if size is not None:
                dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")  # it may say a batch of any size
    del fixed.graph.value_info[:]
    return fixed, images or 1

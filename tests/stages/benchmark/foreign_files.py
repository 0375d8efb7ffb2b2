"""ONNX files as other tools write them: a small classifier in many forms, and what is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

Sizes = Sequence[int | str | None]
IMAGE: Sizes = ("batch", 3, 8, 8)
_F = TensorProto.FLOAT
_W = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32) / 5


def model(
    nodes: Sequence[NodeProto],
    weights: dict[str, np.ndarray],
    inputs: dict[str, tuple[int, Sizes]],
    outputs: dict[str, tuple[int, Sizes | None]],
    opset: int = 17,
    ir_version: int = 8,
) -> ModelProto:
    """A graph of one domain; inputs and outputs as type and sizes."""
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    sides = (
        [helper.make_tensor_value_info(name, *given) for name, given in side.items()]
        for side in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "foreign", *sides, tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def classifier(
    sizes: Sizes = IMAGE, *, opset: int = 17, channels: int = 4, element: Any = np.float32
) -> ModelProto:
    """Convolution, ReLU, global mean, flattened: `channels` scores."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(element))
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["logits"]),
    ]
    weights = {"w": np.resize(_W, (channels, 3, 3, 3)).astype(element)}
    ir_version = 4 if opset < 10 else 8
    rows = sizes[0] if sizes else None
    return model(
        nodes,
        weights,
        {"input": (kind, sizes)},
        {"logits": (kind, (rows, channels))},
        opset,
        ir_version,
    )


def reshaped() -> ModelProto:
    """Flattens by Reshape(-1, 192), made for 8×8 pixels: other sizes give several rows an image."""
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["logits"])]
    weights = {"shape": np.array([-1, 192])}
    return model(
        nodes,
        weights,
        {"input": (_F, ("batch", 3, "h", "w"))},
        {"logits": (_F, ("rows", 192))},
    )


def detector() -> ModelProto:
    """Four boxes of 48 numbers for each image, of 8×8 pixels and no other."""
    proto = reshaped()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([-1, 48]), "shape"))
    sizes = proto.graph.input[0].type.tensor_type.shape.dim
    sizes[2].dim_value = sizes[3].dim_value = 8
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 48
    return proto


def text_model() -> ModelProto:
    """Token ids and a mask of them, embedded and averaged."""
    ids = (TensorProto.INT64, ("batch", "sequence"))
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=_F),
        helper.make_node("Unsqueeze", ["m", "last"], ["m1"]),
        helper.make_node("Mul", ["e", "m1"], ["k"]),
        helper.make_node("ReduceMean", ["k"], ["logits"], axes=[1], keepdims=0),
    ]
    weights = {"table": np.ones((2, 4), np.float32), "last": np.array([2])}
    return model(
        nodes, weights, {"input_ids": ids, "attention_mask": ids}, {"logits": (_F, ("batch", 4))}
    )


def two_inputs() -> ModelProto:
    """An image and a row of facts, whose scores are added."""
    proto = classifier()
    proto.graph.node[3].output[0] = "f"
    proto.graph.node.append(helper.make_node("Add", ["f", "facts"], ["logits"]))
    proto.graph.input.append(helper.make_tensor_value_info("facts", _F, ("batch", 4)))
    return proto


def uint8_input() -> ModelProto:
    """Pixels as bytes."""
    proto = classifier()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    proto.graph.node.insert(0, helper.make_node("Cast", ["input"], ["x"], to=_F))
    proto.graph.node[1].input[0] = "x"
    return proto


def float16() -> ModelProto:
    return classifier(element=np.float16)


def weights_as_inputs() -> ModelProto:
    proto = classifier()
    proto.graph.input.append(helper.make_tensor_value_info("w", _F, _W.shape))
    return proto


def old_weights_as_inputs() -> ModelProto:
    """As IR version 3 wanted it; they are constants all the same."""
    proto = weights_as_inputs()
    proto.ir_version = 3
    return proto


def float_weights_quantised() -> ModelProto:
    """QDQ as TensorRT's tools write it: float weights, quantised and back in the graph."""
    proto = classifier()
    pair = [
        helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"])
        for name in ("w", "input")
    ]
    back = [
        helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_f"])
        for name in ("w", "input")
    ]
    proto.graph.node[0].input[:] = ["input_f", "w_f"]
    for at, node in enumerate([*pair, *back]):
        proto.graph.node.insert(at, node)
    for name, array in {"s": np.float32(0.02), "z": np.int8(0)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def no_batch() -> ModelProto:
    """An image by itself, as CoreML's converters write it."""
    proto = classifier((1, 3, 8, 8))
    shape = proto.graph.input[0].type.tensor_type.shape
    del shape.dim[0]
    proto.graph.node.insert(0, helper.make_node("Unsqueeze", ["input", "first"], ["x"]))
    proto.graph.node[1].input[0] = "x"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    return proto


def string_input() -> ModelProto:
    nodes = [helper.make_node("Identity", ["input"], ["logits"])]
    text = (TensorProto.STRING, ("batch", 1))
    return model(nodes, {}, {"input": text}, {"logits": text})


def enormous_input() -> ModelProto:
    return classifier((1, 3, 600_000, 600_000))


def save(build: Callable[[], ModelProto], folder: Path) -> Path:
    path = folder / f"{build.__name__.strip('<>')}.onnx"
    path.write_bytes(build().SerializeToString())
    return path


def external_data(folder: Path) -> Path:
    """Its weights lie beside it."""
    path = folder / "external.onnx"
    onnx.save_model(
        classifier(channels=64),
        path,
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    return path


def external_data_missing(folder: Path) -> Path:
    path = external_data(folder)
    (folder / "w.bin").unlink()
    return path


def dynamic_int8(folder: Path) -> Path:
    """ConvInteger, whose input is quantised anew at every call."""
    before, path = save(classifier, folder), folder / "dynamic_int8.onnx"
    quantize_dynamic(before, path, weight_type=QuantType.QUInt8, op_types_to_quantize=["Conv"])
    return path


def truncated(folder: Path) -> Path:
    path = save(classifier, folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def three_gigabytes(folder: Path) -> Path:
    """More than protobuf reads; a hole, which takes no room on the disk."""
    path = save(classifier, folder)
    with open(path, "r+b") as file:
        file.truncate(3 * 10**9)
    return path


def large_header(folder: Path) -> Path:
    """A tensor that says it has three billion bytes and has none."""
    proto = classifier()
    proto.graph.initializer[0].dims[:] = [250_000_000, 3, 1, 1]
    path = folder / "header.onnx"
    path.write_bytes(proto.SerializeToString())
    return path

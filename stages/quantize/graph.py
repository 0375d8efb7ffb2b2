"""What a float graph says of itself: the sizes of its input, its activations, who touches them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx


def input_sizes(proto: onnx.ModelProto) -> list[int | None]:
    """(N, C, H, W) of its input; None where the file leaves it open."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    return [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim]


def image_shape(proto: onnx.ModelProto) -> tuple[int, ...] | None:
    """(C, H, W) where the file says it."""
    sizes = [size for size in input_sizes(proto)[1:] if size]
    return tuple(sizes) if len(sizes) == 3 else None


def activations(proto: onnx.ModelProto) -> list[str]:
    """Names of all values in float32 whose shape is known; old files call weights inputs too."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    values = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
    floats = [v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    return [name for name in floats if name not in weights]


def touching(proto: onnx.ModelProto, tensors: Sequence[str]) -> list[str]:
    """Names of the nodes that read or write one of these values."""
    wanted = set(tensors)
    nodes = proto.graph.node
    return [node.name for node in nodes if wanted.intersection([*node.input, *node.output])]

"""Networks ready to be handed over: names and notes that other tools read, and one that takes
pixels as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.preprocessing import Preprocessing
from stages.deploy.deployment import INPUT, OUTPUT

PIXELS, PROBABILITIES = "image", "probabilities"
_PREFIX = "rlp_deploy/"  # of names that no exporter gives


def notes(
    classes: tuple[str, ...], spec: Preprocessing, license_: str | None, version: str
) -> dict[str, str]:
    """What a file says about itself: in our keys, and in those that Ultralytics' tools read."""
    return {
        "classes": json.dumps(classes, ensure_ascii=False),
        "preprocessing": json.dumps(spec.to_dict()),
        "names": repr(dict(enumerate(classes))),
        "imgsz": json.dumps([spec.height, spec.width]),
        "channels": str(spec.channels),
        "task": "classify",
        "version": version,
        "author": "rlp",
        **({"license": license_} if license_ else {}),
    }


def named(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """A copy with input `pixel_values`, output `logits`, and these notes added to its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    new = {graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} - set(new)
    new |= {name: _PREFIX + name for name in (INPUT, OUTPUT) if name in taken}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)
    kept = {entry.key: entry.value for entry in copy.metadata_props}
    del copy.metadata_props[:]
    helper.set_model_props(copy, dict(sorted({**kept, **metadata}.items())))
    return copy


def taking_pixels(proto: onnx.ModelProto, spec: Preprocessing) -> onnx.ModelProto:
    """A network from `named` that takes uint8 (N, H, W, C) and gives probabilities (N, classes).

    In front of it, as plain operators, value · scale + shift per channel; behind it softmax.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph, rows = copy.graph, [row.reshape(1, -1, 1, 1) for row in spec.scale_and_shift()]
    name = {key: _PREFIX + key for key in ("scale", "shift", "planes", "float", "scaled")}
    before = [
        helper.make_node("Transpose", [PIXELS], [name["planes"]], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [name["planes"]], [name["float"]], to=TensorProto.FLOAT),
        helper.make_node("Mul", [name["float"], name["scale"]], [name["scaled"]]),
        helper.make_node("Add", [name["scaled"], name["shift"]], [INPUT]),
    ]
    nodes = [*before, *graph.node, helper.make_node("Softmax", [OUTPUT], [PROBABILITIES], axis=1)]
    del graph.node[:]
    graph.node.extend(nodes)
    for key, row in zip(("scale", "shift"), rows, strict=True):
        graph.initializer.append(numpy_helper.from_array(row, name[key]))
    _replace_ends(graph, spec)
    del copy.metadata_props[:]
    given = {entry.key: entry.value for entry in proto.metadata_props}
    layout = "NHWC uint8, channels R G B or grey, resized as preprocessing says; not normalised"
    helper.set_model_props(copy, {**given, "layout": layout})
    return copy


def _replace_ends(graph: onnx.GraphProto, spec: Preprocessing) -> None:
    """The graph's input and output are the pixels and the probabilities now."""
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    first = batch.dim_param or batch.dim_value
    sizes = [first, spec.height, spec.width, spec.channels]
    output = onnx.ValueInfoProto()
    output.CopyFrom(graph.output[0])
    output.name = PROBABILITIES
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, sizes))
    graph.output.append(output)

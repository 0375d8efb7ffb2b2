"""What a file says about itself: our notes for a deployment, and none of the exporter's."""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx


def class_metadata(
    classes: list[str], mean: list[float], std: list[float], image_shape: list[int]
) -> dict[str, str]:
    """What a deployment needs to feed the file and to name its answer.

    Args:
        mean, std: per channel, of pixels scaled to 0 … 1.
        image_shape: (channels, height, width).
    """
    return {
        "classes": json.dumps(classes, ensure_ascii=False),
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "image_shape": json.dumps(image_shape),
        "layout": "NCHW, channels R G B, pixels 0..1 then (x - mean) / std",
    }


def replace_notes(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Drop the exporter's notes and stack traces, with their paths of this machine; add ours."""
    graph = proto.graph
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        for item in field:
            del item.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
    del graph.metadata_props[:]
    del proto.metadata_props[:]
    for key in sorted(metadata):  # sorted, so that the same network gives the same bytes
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, str(metadata[key])

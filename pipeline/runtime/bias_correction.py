"""Bias correction of a Q/DQ graph: mean errors of each channel go into the biases. In the child.

Quantising a weight shifts the mean of what its layer gives, and a shift adds up from layer to
layer. In the order of the graph, each layer runs on what the corrected layers before it give; what
the mean of a channel then lacks of the float network's mean is added to the bias (Nagel et al.
2019, arXiv 1906.04721, section 4.2, with means measured on images).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_DQ = "DequantizeLinear"
_LAYERS = ("Conv", "Gemm")  # have a bias of their own
_LIMIT = np.iinfo(np.int32)

Chunks = list[np.ndarray]
"""One activation, batch by batch."""


def corrected(float_model: onnx.ModelProto, graph: bytes, x: np.ndarray, batch: int) -> bytes:
    """The Q/DQ graph with corrected biases.

    Args:
        float_model: what `graph` was made of; nodes of the same name are the same layer.
        x: images (N, C, H, W) float32; `batch` of them run at a time.
    """
    quantised = onnx.ModelProto.FromString(graph)
    chunks = [x[at : at + batch] for at in range(0, len(x), batch)]
    made = {name: node for node in quantised.graph.node for name in node.output}
    known = {node.name: node for node in float_model.graph.node if _adds_its_bias(node)}
    layers = [
        node
        for node in quantised.graph.node
        if node.name in known and all(_dequantised(made, name) for name in node.input if name)
    ]
    wanted = _float_means(float_model, [known[node.name].output[0] for node in layers], chunks)
    walk = _Walk(quantised, chunks)
    biases = _Biases(quantised, made)
    for node in layers:
        found = walk.reach(node.output[0])
        missing = wanted[known[node.name].output[0]] - _channel_means(found)
        if np.isfinite(missing).all():
            walk.shift(node.output[0], biases.add(node, missing))
    biases.finish()
    return quantised.SerializeToString(deterministic=True)


def _adds_its_bias(node: onnx.NodeProto) -> bool:
    """Whether it gives products plus bias: a Gemm may multiply either of them first."""
    factors = {a.f for a in node.attribute if a.name in ("alpha", "beta")}
    return node.op_type in _LAYERS and factors <= {1.0}


def _dequantised(made: dict[str, onnx.NodeProto], name: str) -> bool:
    return name in made and made[name].op_type == _DQ


def _channel_means(chunks: Chunks) -> np.ndarray:
    """(C,) float64 of arrays (N, C, ...), weighted by their images."""
    sums = [chunk.mean(axis=(0, *range(2, chunk.ndim)), dtype=np.float64) for chunk in chunks]
    return np.average(sums, axis=0, weights=[len(chunk) for chunk in chunks])


def _float_means(model: onnx.ModelProto, names: list[str], chunks: Chunks) -> dict[str, np.ndarray]:
    """Channel means of these activations of the float network."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    there = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in there
    )
    session = _session(watched)
    feed = session.get_inputs()[0].name
    rows = [[_channel_means([y]) for y in session.run(names, {feed: x})] for x in chunks]
    weights = [len(x) for x in chunks]
    return {
        name: np.average([row[index] for row in rows], axis=0, weights=weights)
        for index, name in enumerate(names)
    }


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # as the graph says it: opened once and run once, so fusing would cost more than it gives
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class _Walk:
    """Runs a graph piece by piece and holds the activations that are still to be read."""

    def __init__(self, model: onnx.ModelProto, chunks: Chunks) -> None:
        self.model = model
        self.made = {name: node for node in model.graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        inputs = [v.name for v in model.graph.input if v.name not in self.constants]
        self.live: dict[str, Chunks] = {inputs[0]: chunks}
        self.readers = Counter(name for node in model.graph.node for name in node.input)

    def reach(self, name: str) -> Chunks:
        """Run what is missing of this activation, and return it."""
        piece = self._piece(name)
        own = {out for node in piece for out in node.output}
        fed = {i for node in piece for i in node.input if i in self.live}
        self.readers.subtract(i for node in piece for i in node.input)
        kept = [out for out in own if out == name or self.readers[out] > 0]
        for out, values in self._run(piece, fed, kept).items():
            self.live[out] = values
        for gone in [known for known in self.live if known != name and self.readers[known] <= 0]:
            del self.live[gone]
        return self.live[name]

    def shift(self, name: str, by: np.ndarray) -> None:
        """Add (C,) to an activation, as a bias would have."""
        ndim = self.live[name][0].ndim
        by = by.reshape(1, -1, *[1] * (ndim - 2)).astype(np.float32)
        self.live[name] = [chunk + by for chunk in self.live[name]]

    def _piece(self, name: str) -> list[onnx.NodeProto]:
        """The nodes, in their order, that lie between what is held and this activation."""
        needed, stack = set(), [name]
        while stack:
            wanted = stack.pop()
            if wanted in self.live or wanted not in self.made:
                continue
            node = self.made[wanted]
            if node.output[0] not in needed:
                needed.add(node.output[0])
                stack.extend(node.input)
        return [node for node in self.model.graph.node if node.output[0] in needed]

    def _run(
        self, piece: list[onnx.NodeProto], fed: set[str], kept: list[str]
    ) -> dict[str, Chunks]:
        if not piece:
            return {}
        session = _session(self._model(piece, sorted(fed), kept))
        rows = [
            session.run(kept, dict(zip(sorted(fed), values, strict=True)))
            for values in zip(*(self.live[one] for one in sorted(fed)), strict=True)
        ]
        return {out: [row[index] for row in rows] for index, out in enumerate(kept)}

    def _model(
        self, piece: list[onnx.NodeProto], fed: list[str], kept: list[str]
    ) -> onnx.ModelProto:
        read = {name for node in piece for name in node.input}
        types = [helper.np_dtype_to_tensor_dtype(self.live[name][0].dtype) for name in fed]
        graph = helper.make_graph(
            piece,
            "piece",
            [_value(name, kind) for name, kind in zip(fed, types, strict=True)],
            [onnx.ValueInfoProto(name=name) for name in kept],
            [self.constants[name] for name in sorted(read) if name in self.constants],
        )
        return helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )


def _value(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, None)


class _Biases:
    """The quantised biases of a graph, written anew at `finish`."""

    def __init__(self, model: onnx.ModelProto, made: dict[str, onnx.NodeProto]) -> None:
        self.model, self.made = model, made
        self.values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.tensors: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def add(self, node: onnx.NodeProto, missing: np.ndarray) -> np.ndarray:
        """Give the layer a bias of its own that is larger by (C,). Returns what it grew by."""
        scale = self._scale(node.input[0]) * self._scale(node.input[1])
        before = self._bias(node, len(missing))
        steps = np.rint(missing / scale)
        after = np.clip(before + steps, _LIMIT.min, _LIMIT.max).astype(np.int32)
        self._write(node, after, scale.astype(np.float32))
        return (after - before) * scale

    def _scale(self, name: str) -> np.ndarray:
        return self.values[self.made[name].input[1]].astype(np.float64)

    def _bias(self, node: onnx.NodeProto, channels: int) -> np.ndarray:
        """(C,) in steps of the scale, zeros where the layer has none."""
        if len(node.input) < 3 or not node.input[2]:
            return np.zeros(channels, np.int64)
        stored = self.values[self.made[node.input[2]].input[0]]
        return np.broadcast_to(stored.reshape(-1), channels).astype(np.int64)

    def _write(self, node: onnx.NodeProto, bias: np.ndarray, scale: np.ndarray) -> None:
        """A copy, since another layer may share what it had."""
        name = f"{node.name}_corrected_bias"
        self.tensors.append(numpy_helper.from_array(bias, name))
        scales = np.broadcast_to(scale.reshape(-1), len(bias)) if scale.ndim else scale
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(scales), f"{name}_scale"))
        made = helper.make_node(_DQ, [name, f"{name}_scale"], [f"{name}_dequantised"], f"{name}_dq")
        if scale.ndim:
            made.attribute.append(helper.make_attribute("axis", 0))
        self.nodes.append(made)
        inputs = [*node.input[:2], *made.output]
        del node.input[:]
        node.input.extend(inputs)

    def finish(self) -> None:
        """Put the new biases into the graph and drop what nobody reads any more."""
        graph = self.model.graph
        nodes = [*self.nodes, *graph.node]
        read = {name for node in nodes for name in node.input} | {v.name for v in graph.output}
        nodes = [n for n in nodes if n.op_type != _DQ or read.intersection(n.output)]
        read = {name for node in nodes for name in node.input}
        tensors = [t for t in [*graph.initializer, *self.tensors] if t.name in read]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(tensors)

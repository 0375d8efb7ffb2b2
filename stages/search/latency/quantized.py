"""Candidates in INT8: slices of the quantised original, and which scheme is the fastest here.

What a graph takes depends on its types and not on its numbers, so nothing is calibrated: the ranges
of the activations are made up, and what is timed is good for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from pipeline.channels.graph import ChannelGraph
from pipeline.errors import ArtifactError, Refused
from pipeline.runtime.quantizer import Quantizer
from pipeline.runtime.rewrites import rewritten
from stages.benchmark.latency import LatencyWorker, RelativeLatency
from stages.export.slicing import OnnxSlicer
from stages.quantize.schemes import OPERATORS, SCHEMES, Scheme, fastest_first

Keep = Mapping[str, Sequence[int]]
LOOK, LONGER = 0.1, 0.5  # seconds of timing: to tell schemes apart, and of the fastest


class QuantizedCandidates:
    """INT8 graphs of candidates. `close` it: where slices are quantised, a process does it.

    Args:
        original: the export of the uncut network, see `OnnxSlicer`.

    Attributes:
        reason: why candidates are not slices of the quantised original, but quantised slices,
            which takes seconds each; "" where they are.
    Raises:
        Refused: the exported graph cannot be sliced.
        ArtifactError: onnxruntime cannot quantise it.
    """

    def __init__(self, original: onnx.ModelProto, graph: ChannelGraph, scheme: Scheme) -> None:
        self.scheme, self.reason = scheme, ""
        original = prepared(original)
        self._slicer = self._floats = OnnxSlicer(original, graph)
        self._quantizer: Quantizer | None = None
        quantized = onnx.ModelProto.FromString(self._quantized(original))
        try:
            self._slicer = OnnxSlicer(original, graph, quantized)
            self.close()
        except Refused as error:
            self.reason = error.message

    def close(self) -> None:
        """End the process, if one runs; the next candidate that needs one starts another."""
        if self._quantizer is not None:
            self._quantizer.close()
            self._quantizer = None

    def slice_bytes(self, keep: Keep) -> bytes:
        """The graph of a candidate, serialised. Raises as the constructor does."""
        if not self.reason:
            try:
                return self._slicer.slice_bytes(keep)
            except Refused as error:
                self.reason = error.message
        sliced = self._floats.slice(keep)  # what it says of sizes goes with the slices
        return self._quantized(onnx.shape_inference.infer_shapes(sliced))

    def _quantized(self, proto: onnx.ModelProto) -> bytes:
        if self._quantizer is None:
            self._quantizer = Quantizer()
        return quantized_by(self._quantizer, proto, self.scheme)


def prepared(original: onnx.ModelProto) -> onnx.ModelProto:
    """In the words for which there are INT8 kernels, as stage quantize prepares a file."""
    copy = onnx.ModelProto()
    copy.CopyFrom(original)
    return rewritten(copy)


def quantized_by(quantizer: Quantizer, proto: onnx.ModelProto, scheme: Scheme) -> bytes:
    """A graph of the scheme's speed, its ranges made up. Raises ArtifactError."""
    quantizer.load(proto.SerializeToString())
    found = quantizer.quantize(
        activation=scheme.activation,
        weight=scheme.weight,
        per_channel=scheme.per_channel,
        reduce_range=scheme.reduce_range,
        operators=OPERATORS[scheme.operators],
    )
    return found.model


def fastest_scheme(
    original: onnx.ModelProto, worker: LatencyWorker
) -> tuple[Scheme, RelativeLatency]:
    """Of the schemes that stage quantize tries, the one that it would try first here.

    Args:
        worker: times against the float graph.
    Raises:
        ArtifactError: onnxruntime can make none of them, or run none.
    """
    original = prepared(original)
    found: dict[Scheme, tuple[bytes, RelativeLatency]] = {}
    problem: ArtifactError | None = None
    with Quantizer() as quantizer:
        for scheme in SCHEMES:
            try:
                graph = quantized_by(quantizer, original, scheme)
                found[scheme] = graph, worker.relative(graph, min_time=LOOK)
            except ArtifactError as error:
                problem = error
    if not found:
        assert problem is not None
        raise problem
    best = fastest_first(list(found), lambda scheme: 1 / found[scheme][1].fraction)[0]
    return best, worker.relative(found[best][0], min_time=LONGER)

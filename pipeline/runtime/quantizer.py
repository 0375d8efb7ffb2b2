"""The parent's side of quantising: a child process that holds one float graph and calibrates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.runtime.worker import Worker

Ranges = Mapping[str, Sequence[float]]
"""Lowest and highest value of an activation, by its name in the float graph."""


@dataclass(frozen=True)
class QuantizedGraph:
    """An INT8 graph that a `Quantizer` made.

    Attributes:
        model: the serialised graph, with Q/DQ nodes.
        tensors: activations that were given a scale, by their names in the float graph.
        float_nodes: names of the nodes that compute and stayed float.
    """

    model: bytes
    tensors: tuple[str, ...]
    float_nodes: tuple[str, ...]


class Quantizer(Worker):
    """A child process that quantises with onnxruntime's tools; what crashes there kills it alone.

    with Quantizer() as quantizer:
        model = quantizer.prepare(path)
        quantizer.watch(tensors, (3, 32, 32))
        quantizer.observe(images)
        ranges, infinite = quantizer.ranges("minmax")
        quantizer.quantize(…, ranges=ranges).model
    """

    def prepare(self, path: Path) -> bytes:
        """The file in one piece, shapes inferred, batch norms folded, every node named.

        Raises:
            ArtifactError: no ONNX file of a float32 network, or quantised already.
        """
        self.subject = str(path)
        return self._ask("prepare", path=str(path))["payload"]

    def load(self, model: bytes) -> None:
        """Take a float graph with shapes, its nodes named; in the place of a prepared one, such as
        an equalised one, or of none.
        """
        self._ask("load", model)

    def hold(self, path: Path) -> bytes:
        """Take a float file as it is, for `halve`; in one piece, shapes inferred, nodes named.

        Raises:
            ArtifactError: no ONNX file of a float32 network, or quantised already.
        """
        self.subject = str(path)
        return self._ask("hold", path=str(path))["payload"]

    def halve(
        self, operators: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> tuple[bytes, tuple[str, ...]]:
        """The float16 graph of what is held, with float32 input and output.

        Args:
            operators: types of nodes that stay float32, besides those without a float16 kernel.
            exclude: names of nodes that stay float32.
        Returns:
            the serialised graph, and the names of the nodes that stayed float32.
        Raises:
            ArtifactError: onnxruntime's converter refuses the graph.
        """
        answer = self._ask("halve", operators=list(operators), exclude=list(exclude))
        return answer["payload"], tuple(answer["float_nodes"])

    def watch(self, tensors: Sequence[str], shape: Sequence[int], *, threads: int = 0) -> int:
        """Begin a calibration of these activations on images (C, H, W) of this shape.

        Returns:
            their bytes for one image.
        """
        answer = self._ask("watch", tensors=list(tensors), shape=list(shape), threads=threads)
        return answer["bytes"]

    def observe(self, x: np.ndarray) -> None:
        """Add a batch of images (N, C, H, W) float32 to the calibration."""
        x = np.ascontiguousarray(x, np.float32)
        self._ask("observe", x.tobytes(), shape=list(x.shape))

    def ranges(
        self, method: str, percentile: float = 0.0
    ) -> tuple[dict[str, list[float]], list[str]]:
        """Ranges of the watched activations, and names of those that were not finite.

        Args:
            method: "minmax" (mean of the batches' extremes), "percentile" or "entropy".
            percentile: share of the values in percent that the range holds.
        """
        answer = self._ask("ranges", method=method, percentile=percentile)
        return answer["ranges"], answer["infinite"]

    def quantize(
        self,
        *,
        activation: str,
        weight: str,
        per_channel: bool,
        reduce_range: bool,
        operators: Sequence[str],
        exclude: Sequence[str] = (),
        ranges: Ranges | None = None,
    ) -> QuantizedGraph:
        """An INT8 graph of the float one.

        Args:
            activation, weight: "uint8" or "int8".
            reduce_range: 7 bits for the weights.
            operators: types of nodes that are quantised.
            exclude: names of nodes that stay float.
            ranges: of the activations; None: some, for a graph that is only timed.
        Raises:
            ArtifactError: onnxruntime's quantiser refuses the graph or these ranges.
        """
        answer = self._ask(
            "quantize",
            activation=activation,
            weight=weight,
            per_channel=per_channel,
            reduce_range=reduce_range,
            operators=list(operators),
            exclude=list(exclude),
            ranges=None if ranges is None else {name: list(pair) for name, pair in ranges.items()},
        )
        lists = (tuple(answer[name]) for name in ("tensors", "float_nodes"))
        return QuantizedGraph(answer["payload"], *lists)

    def equalize(self, x: np.ndarray, batch: int) -> bytes:
        """The float graph with channels of like size; empty where none can be moved.

        Args:
            x: images (N, C, H, W) float32; `batch` of them run at a time.
        """
        x = np.ascontiguousarray(x, np.float32)
        return self._ask("equalize", x.tobytes(), shape=list(x.shape), batch=batch)["payload"]

    def correct_biases(self, model: bytes, x: np.ndarray, batch: int) -> bytes:
        """An INT8 graph of the float one with the mean error of each channel in its biases.

        Args:
            x: images (N, C, H, W) float32; `batch` of them run at a time.
        """
        x = np.ascontiguousarray(x, np.float32)
        payload, size = model + x.tobytes(), len(model)
        answer = self._ask("correct", payload, graph=size, shape=list(x.shape), batch=batch)
        return answer["payload"]

    def saturates(self, activation: str, weight: str) -> bool:
        """Whether this machine's kernel for these types overflows 16 bits, by asking it."""
        return self._ask("saturates", activation=activation, weight=weight)["saturates"]

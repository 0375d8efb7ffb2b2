"""Small ONNX classifiers of (1, 8, 8) images, and images whose classes they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stages.quantize import ArrayImages, engine, workbench
from stages.quantize.report import Timing

FLOAT = onnx.TensorProto.FLOAT


def images(count: int = 96, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """(N, 1, 8, 8) float32, one quadrant of each brighter than the others."""
    generator = np.random.default_rng(seed)
    x = generator.normal(0, 0.2, (count, 1, 8, 8)).astype(np.float32)
    for index in range(count):
        row, column = divmod(index % 4, 2)
        x[index, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
    return x * np.float32(scale)


def labelled(count: int = 96, seed: int = 0) -> ArrayImages:
    """The same with the quadrant as their class."""
    return ArrayImages(images(count, seed), np.arange(count) % 4)


def quadrants(
    path: Path,
    middle: Sequence[onnx.NodeProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
    constants: dict[str, np.ndarray] | None = None,
    batch: str | int = "batch",
) -> Path:
    """A network that names the brightest quadrant: mean of each, convolutions, and an add.

    Args:
        middle: nodes from `features` to `altered`, both (N, 8, 2, 2).
        constants: initialisers for them.
    """
    generator = np.random.default_rng(1)
    mix = generator.normal(0, 0.5, (8, 8, 1, 1)).astype(np.float32)
    spread = np.abs(generator.normal(1, 0.3, (8, 1, 4, 4))).astype(np.float32) / 16
    weights = {
        "stem.weight": spread,
        "stem.bias": np.linspace(-0.1, 0.1, 8, dtype=np.float32),
        "mix.weight": mix,
        "mix.bias": np.zeros(8, np.float32),
        "head.weight": _reads_the_brightest(spread),
        "head.bias": np.zeros(4, np.float32),
        **(constants or {}),
    }
    nodes = [
        helper.make_node("Conv", ["input", "stem.weight", "stem.bias"], ["stem"], strides=[4, 4]),
        helper.make_node("Relu", ["stem"], ["features"]),
        *(middle or [helper.make_node("Identity", ["features"], ["altered"])]),
        helper.make_node("Conv", ["altered", "mix.weight", "mix.bias"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["rectified"]),
        helper.make_node("Sub", ["rectified", "rectified"], ["nothing"]),
        helper.make_node("Add", ["altered", "nothing"], ["sum"]),
        helper.make_node("Flatten", ["sum"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "quadrants",
        [helper.make_tensor_value_info("input", FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", FLOAT, [batch, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "classes", '["a", "b", "c", "d"]'
    path.write_bytes(proto.SerializeToString())
    return path


def _reads_the_brightest(spread: np.ndarray) -> np.ndarray:
    """(4, 32): the logit of a quadrant is the mean of its eight features."""
    head = np.zeros((4, 8, 4), np.float32)
    for quadrant in range(4):
        head[quadrant, :, quadrant] = 1 / 8
    return head.reshape(4, 32)


class Clock:
    """Every INT8 graph is this much faster, without anything being timed."""

    ratio = 1.5

    def __init__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def look(self, model: bytes) -> Timing:
        return Timing(self.ratio)

    @classmethod
    def time_pair(cls, *_: object) -> Timing:
        ratio = cls.ratio
        return Timing(ratio, (0.9 * ratio, 1.1 * ratio), "faster", (ratio, 1.0))


def made_up_clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """Nothing is timed, and no child is started to check what was written."""
    monkeypatch.setattr(workbench, "Looker", Clock)
    monkeypatch.setattr(workbench, "time_pair", Clock.time_pair)
    monkeypatch.setattr(engine, "check_file", lambda path, label: None)
    monkeypatch.setattr(Clock, "ratio", 1.5)
    return Clock

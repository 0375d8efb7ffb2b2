"""ONNX graphs to time, made without an exporter, and made-up profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from pipeline.runtime import CPU
from stages.benchmark.node_times import BLOCKED, INT8, NodeTime, Profile
from stages.benchmark.probes import conv_chain
from stages.benchmark.protocol import Protocol

QUICK = Protocol(
    min_seconds=0.1,
    min_runs=10,
    launches=2,
    slot_seconds=0.002,
    min_rounds=3,
    limit_seconds=20,
    warm_limit=0.1,
)


def conv_file(folder: Path, channels: int, name: str = "", size: int = 16, repeat: int = 4) -> Path:
    """A chain of 3×3 convolutions, `channels` wide."""
    path = folder / (name or f"conv{channels}.onnx")
    path.write_bytes(conv_chain(channels, size, repeat=repeat))
    return path


class _Noise(CalibrationDataReader):  # type: ignore[misc]
    """Two batches of standard normal images of `channels`×8×8."""

    def __init__(self, channels: int) -> None:
        generator = np.random.default_rng(0)
        batches = generator.standard_normal((2, 2, channels, 8, 8)).astype(np.float32)
        self._left = iter([{"input": batch} for batch in batches])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def int8_file(path: Path, channels: int, activation: str = "uint8", **options: Any) -> Path:
    """The float file in INT8, beside it: int8 weights, a scale for each channel."""
    out = path.with_name(f"{path.stem}_{activation}.onnx")
    quantize_static(
        path,
        out,
        _Noise(channels),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8 if activation == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        **options,
    )
    return out


def conv_node(
    layer: str, us: float, channels: int = 64, layout: str = BLOCKED, **more: Any
) -> NodeTime:
    """A convolution as wide as its input, at 50 GMAC/s."""
    facts = {"macs": int(us * 50_000), "group": 1, **more}
    op = "QLinearConv" if layout == INT8 else "Conv"
    return NodeTime(f"{layer}_node", op, CPU, us, layer, channels, channels, layout=layout, **facts)


def other_node(op: str, us: float, provider: str = CPU) -> NodeTime:
    """A node without a weight."""
    return NodeTime(op.lower(), op, provider, us)


def profile_of(*nodes: NodeTime, denormals: int = 0, **more: Any) -> Profile:
    return Profile(nodes, sum(node.macs for node in nodes), denormals, **more)

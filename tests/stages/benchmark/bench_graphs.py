"""ONNX graphs to time, made without an exporter."""

from __future__ import annotations

from pathlib import Path

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

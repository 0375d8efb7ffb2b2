"""ONNX graphs to time, made without an exporter, and made-up profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.runtime import CPU
from stages.benchmark.node_profile import BLOCKED, NodeTime, Profile
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


def conv_node(
    layer: str, us: float, channels: int = 64, layout: str = BLOCKED, **more: Any
) -> NodeTime:
    """A convolution as wide as its input, at 50 GMAC/s."""
    facts = {"macs": int(us * 50_000), "group": 1, **more}
    return NodeTime(
        f"{layer}_node", "Conv", CPU, us, layer, channels, channels, layout=layout, **facts
    )


def other_node(op: str, us: float, provider: str = CPU) -> NodeTime:
    """A node without a weight."""
    return NodeTime(op.lower(), op, provider, us)


def profile_of(*nodes: NodeTime, denormals: int = 0) -> Profile:
    return Profile(nodes, sum(node.macs for node in nodes), denormals)

"""A profile by layer: what the runtime's fused nodes were called in the file, and how each was
laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime import Worker, find_provider
from stages.benchmark.fingerprint import cores, resolve_threads
from stages.benchmark.protocol import Setting

REORDERS = ("ReorderInput", "ReorderOutput")
BLOCKED, PLAIN = "blocked", "plain"


@dataclass(frozen=True)
class NodeTime:
    """One node of the optimised graph.

    `layer` is the weight's name in the file, empty for nodes without one. `layout` of a convolution
    is "blocked" where onnxruntime moved it to its channel-blocked kernels, then `padded` counts the
    multiply-accumulates spent on channels that exist only to fill the last block.
    """

    name: str
    op: str
    provider: str
    us: float
    layer: str = ""
    channels_in: int = 0
    channels_out: int = 0
    group: int = 1
    macs: int = 0
    padded: int = 0
    layout: str = ""

    @property
    def depthwise(self) -> bool:
        return self.group > 1 and self.group == self.channels_in


@dataclass(frozen=True)
class Profile:
    """All nodes of one file at one setting; times are medians over the runs, in microseconds."""

    nodes: tuple[NodeTime, ...]
    macs: int
    denormals: int

    @property
    def us(self) -> float:
        return sum(node.us for node in self.nodes)

    def share(self, nodes: Sequence[NodeTime]) -> float:
        """The part of the whole time that these nodes take."""
        return sum(node.us for node in nodes) / self.us if self.us else 0.0

    @property
    def convs(self) -> list[NodeTime]:
        return [node for node in self.nodes if node.layout]

    def to_dict(self) -> dict[str, Any]:
        return {
            "us": self.us,
            "macs": self.macs,
            "gmacs_per_s": self.macs / self.us / 1e3 if self.us else 0.0,
            "nodes": [
                {key: value for key, value in asdict(node).items() if value != ""}
                for node in self.nodes
            ],
        }


def profile(
    path: Path, setting: Setting, *, input_shape: Sequence[int] | None = None, runs: int = 30
) -> Profile:
    """Run the file in a child with onnxruntime's profiler on. Perturbs timings: never used for a
    ratio.

    MACs are those of a whole call, `setting.batch` images.
    """
    provider = find_provider(setting.provider)
    threads = resolve_threads(setting.threads)
    with Worker() as worker:
        facts = worker.scan(path, input_shape)
        worker.pin(cores(threads))
        worker.open(
            path,
            provider=provider.name,
            threads=threads,
            profile=True,
            static_dims={"batch": setting.batch} if setting.static_batch else None,
        )
        worker.feed(batch=setting.batch, shape=input_shape, device=provider.device)
        rows = worker.profile(runs=runs, skip=min(5, runs // 2))
    layers = layer_names(facts["layers"])
    nodes = tuple(node_time(row, layers, setting.batch) for row in rows)
    return Profile(nodes, setting.batch * facts["macs"], facts["denormals"])


def layer_names(layers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every name by which a profile may call a layer: its node, its value, or a value that it
    was fused with.
    """
    names: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for value in layer["values"][1:]:
            names.setdefault(value, layer)
    for layer in layers:
        names[layer["values"][0]] = layer
        names[layer["node"]] = layer
    return names


def node_time(row: dict[str, Any], layers: dict[str, dict[str, Any]], batch: int = 1) -> NodeTime:
    """One row of the child's profile, with what the file says about its layer."""
    blocked = row["name"].endswith("_nchwc")
    name = row["name"].removesuffix("_nchwc")
    node = NodeTime(row["name"], row["op"], row["provider"], float(row["us"]))
    layer = layers.get(name) or layers.get(name.removeprefix("fused "))
    if layer is None or row["op"] in REORDERS or not _multiplies(row["op"]):
        return node
    macs = batch * layer["macs"]
    conv = "Conv" in row["op"]
    return NodeTime(
        node.name,
        node.op,
        node.provider,
        node.us,
        layer=layer["layer"],
        channels_in=layer["in"],
        channels_out=layer["out"],
        group=layer["group"],
        macs=macs,
        padded=_padded(row, layer, macs) if blocked else 0,
        layout=(BLOCKED if blocked else PLAIN) if conv else "",
    )


def _multiplies(op: str) -> bool:
    return any(part in op for part in ("Conv", "Gemm", "MatMul"))


def _padded(row: dict[str, Any], layer: dict[str, Any], macs: int) -> int:
    """MACs on the zeros that fill the last block: the weight as the kernel sees it against the
    weight as stored.
    """
    if len(row["inputs"]) < 2 or len(row["inputs"][1]) < 2 or not layer["out"] or not layer["in"]:
        return 0
    stored = layer["out"] * layer["in"] // layer["group"]
    seen = row["inputs"][1][0] * row["inputs"][1][1]
    return max(0, macs * seen // stored - macs)

"""One file profiled: what the runtime's fused nodes are called in the file, and their layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.runtime.providers import find_provider
from pipeline.runtime.worker import Worker
from stages.benchmark.fingerprint import cores, resolve_threads
from stages.benchmark.protocol import Setting

REORDERS = ("ReorderInput", "ReorderOutput")  # onnxruntime's copies between its layouts
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
BLOCKED, PLAIN, INT8 = "blocked", "plain", "int8"
_BLOCKED_SUFFIX = "_nchwc"  # how onnxruntime renames what it moves to channel-blocked kernels

_FUSED_INTEGER = re.compile(r"_token_\d+$")  # and what it fuses with its conversions
_INTEGER = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantize", "QAttention")


@dataclass(frozen=True)
class NodeTime:
    """One node of the optimised graph.

    Attributes:
        us: median microseconds of a call.
        layer: the weight's name in the file, empty for nodes without one.
        macs: multiply-accumulates of a whole call, all images of the batch.
        padded: those on channels that exist only to fill the last block.
        layout: of a convolution "blocked", "plain" or "int8", of anything else empty.
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

    @property
    def integer(self) -> bool:
        """Whether it computes in INT8."""
        return self.op.startswith(_INTEGER)


@dataclass(frozen=True)
class Profile:
    """All nodes of one file at one setting.

    Attributes:
        macs: multiply-accumulates of a whole call.
        denormals: weights that are not zero and below the smallest normal number.
        activations, weights: integer types that the file is quantised to; none of a float file.
        seven_bits: whether its weights leave the eighth bit unused.
    """

    nodes: tuple[NodeTime, ...]
    macs: int
    denormals: int
    activations: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    seven_bits: bool = False

    @property
    def us(self) -> float:
        """Microseconds of all nodes."""
        return sum(node.us for node in self.nodes)

    @property
    def quantised(self) -> bool:
        return bool(self.activations) or any(node.integer for node in self.nodes)

    @property
    def gmacs_per_s(self) -> float:
        """Billions of multiply-accumulates a second; 0 where nothing was timed."""
        return self.macs / self.us / 1e3 if self.us else 0.0

    def share(self, nodes: Sequence[NodeTime]) -> float:
        """The part of the whole time that these nodes take."""
        return sum(node.us for node in nodes) / self.us if self.us else 0.0

    @property
    def convs(self) -> list[NodeTime]:
        return [node for node in self.nodes if node.layout]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what a node has nothing to say of is left out."""
        nodes = [
            {key: value for key, value in asdict(node).items() if value != ""}
            for node in self.nodes
        ]
        return {"us": self.us, "macs": self.macs, "gmacs_per_s": self.gmacs_per_s, "nodes": nodes}


def profile(
    path: Path, setting: Setting, *, input_shape: Sequence[int] | None = None, runs: int = 30
) -> Profile:
    """Run the file in a child with onnxruntime's profiler on; it perturbs, so no ratio uses it.

    Args:
        input_shape: sizes after the batch, for files that leave them open.
        runs: profiled calls; the first few are thrown away.
    Raises:
        ArtifactError: the file cannot be opened, or kills the runtime.
        EnvironmentProblem: this onnxruntime lacks the provider, or ran out of memory.
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
    types = facts["quantization"]
    return Profile(
        nodes,
        macs=setting.batch * facts["macs"],
        denormals=facts["denormals"],
        activations=tuple(types["activations"]),
        weights=tuple(types["weights"]),
        seven_bits=types["seven_bits"],
    )


def layer_names(layers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every name by which a profile may call a layer: its node, its value, or one fused with it."""
    names: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for value in layer["values"][1:]:
            names.setdefault(value, layer)
    for layer in layers:  # a layer's own names win over those of what follows another one
        names[layer["values"][0]] = layer
        names[layer["node"]] = layer
    return names


def node_time(
    row: Mapping[str, Any], layers: Mapping[str, dict[str, Any]], batch: int = 1
) -> NodeTime:
    """One row of the child's profile, with what the file says about its layer."""
    node = NodeTime(row["name"], row["op"], row["provider"], float(row["us"]))
    blocked = node.name.endswith(_BLOCKED_SUFFIX)
    name = _FUSED_INTEGER.sub("", node.name.removesuffix(_BLOCKED_SUFFIX))
    layer = layers.get(name) or layers.get(name.removeprefix("fused "))
    if layer is None or node.op in REORDERS or not _multiplies(node.op):
        return node
    macs = batch * layer["macs"]
    layout = ""
    if "Conv" in node.op:
        layout = INT8 if node.integer else BLOCKED if blocked else PLAIN
    return replace(
        node,
        layer=layer["layer"],
        channels_in=layer["in"],
        channels_out=layer["out"],
        group=layer["group"],
        macs=macs,
        padded=_padded(row, layer, macs) if blocked else 0,
        layout=layout,
    )


def _multiplies(op: str) -> bool:
    return any(part in op for part in ("Conv", "Gemm", "MatMul"))


def _padded(row: Mapping[str, Any], layer: dict[str, Any], macs: int) -> int:
    """MACs on the zeros that fill the last block: the weight as the kernel sees it ÷ as stored."""
    if len(row["inputs"]) < 2 or len(row["inputs"][1]) < 2 or not layer["out"] or not layer["in"]:
        return 0
    stored = layer["out"] * layer["in"] // layer["group"]
    seen = row["inputs"][1][0] * row["inputs"][1][1]
    return max(0, macs * seen // stored - macs)

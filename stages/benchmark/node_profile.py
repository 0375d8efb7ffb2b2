"""One file profiled: what the runtime's fused nodes are called in the file, and their layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.runtime.feed import Given
from pipeline.runtime.worker import Worker
from stages.benchmark.node_times import (
    BLOCKED,
    INSERTED_CAST,
    INT8,
    PLAIN,
    REORDERS,
    NodeTime,
    Profile,
)
from stages.benchmark.protocol import open_at
from stages.benchmark.setting import Setting

_BLOCKED_SUFFIX = "_nchwc"  # how onnxruntime renames what it moves to channel-blocked kernels
_FUSED_INTEGER = re.compile(r"_token_\d+$")  # and what it fuses with its conversions


def profile(path: Path, setting: Setting, *, input_shape: Given = None, runs: int = 30) -> Profile:
    """Run the file in a child with onnxruntime's profiler on; it perturbs, so no ratio uses it.

    Args:
        input_shape: sizes after the batch, for files that leave them open.
        runs: profiled calls; the first few are thrown away.
    Raises:
        ArtifactError: the file cannot be opened, or kills the runtime.
        EnvironmentProblem: this onnxruntime lacks the provider, or ran out of memory.
    """
    with Worker() as worker:
        facts = worker.scan(path, input_shape)
        open_at(worker, path, setting, input_shape, profile=True)
        rows = worker.profile(runs=runs, skip=min(5, runs // 2))
    nodes = tuple(node_times(rows, facts["layers"], setting.batch))
    types = facts["quantization"]
    return Profile(
        nodes,
        macs=setting.batch * facts["macs"],
        denormals=facts["denormals"],
        weights_as_inputs=facts["weights_as_inputs"],
        halves=facts["halves"],
        activations=tuple(types["activations"]),
        weights=tuple(types["weights"]),
        seven_bits=types["seven_bits"],
    )


def node_times(
    rows: Sequence[Mapping[str, Any]], layers: Sequence[dict[str, Any]], batch: int = 1
) -> list[NodeTime]:
    """All rows of a profile. Layers without a name, which the runtime calls as it likes, are told
    by their order, where as many nodes are left over.
    """
    names = layer_names(layers)
    found = [_layer_of(row, names) for row in rows]
    seen = [layer["values"] for layer in found if layer]
    missing = iter([layer for layer in layers if layer["values"] not in seen])
    left = [at for at, row in enumerate(rows) if not found[at] and _multiplies(row["op"])]
    if len(left) == len(layers) - len(seen):
        for at in left:
            found[at] = next(missing)
    return [node_time(row, layer, batch) for row, layer in zip(rows, found, strict=True)]


def layer_names(layers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every name by which a profile may call a layer: its node, its value, or one fused with it."""
    names: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for value in layer["values"][1:]:
            names.setdefault(value, layer)
    for layer in layers:  # a layer's own names win over those of what follows another one
        names[layer["values"][0]] = layer
        if layer["node"]:
            names[layer["node"]] = layer
    return names


def _layer_of(
    row: Mapping[str, Any], layers: Mapping[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """What the file says about a row's layer; None of a node that multiplies nothing."""
    if row["op"] in REORDERS or not _multiplies(row["op"]):
        return None
    name = row["name"].removeprefix(INSERTED_CAST).removesuffix(_BLOCKED_SUFFIX)
    name = _FUSED_INTEGER.sub("", name)
    return layers.get(name) or layers.get(name.removeprefix("fused "))


def node_time(row: Mapping[str, Any], layer: dict[str, Any] | None, batch: int = 1) -> NodeTime:
    """One row of the child's profile, with what the file says about its layer."""
    node = NodeTime(row["name"], row["op"], row["provider"], float(row["us"]))
    if layer is None:
        return node
    blocked = node.name.endswith(_BLOCKED_SUFFIX)
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

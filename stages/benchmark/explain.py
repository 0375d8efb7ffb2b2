"""Why no gain: where the time went in both files, side by side, and the causes that follow."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.runtime.feed import Given
from pipeline.system import has_dot_product, int8_features
from stages.benchmark.causes import causes
from stages.benchmark.comparison import Comparison
from stages.benchmark.evidence import Evidence
from stages.benchmark.node_profile import profile
from stages.benchmark.node_times import NodeTime, Profile
from stages.benchmark.roofline import measured_peak
from stages.benchmark.setting import Setting


@dataclass(frozen=True)
class LayerPair:
    """One layer in both files; microseconds, channels and layout, None where a file lacks it."""

    layer: str
    op: str
    a: dict[str, Any] | None
    b: dict[str, Any] | None


@dataclass(frozen=True)
class Explanation:
    """Both profiles side by side.

    Attributes:
        by_op: microseconds and number of nodes of both files, by operator and layout.
        peak_gmacs_per_s: what well-shaped convolutions reach on this machine in the same runtime.
        causes: why B is not (much) faster, the weightiest first; empty where nothing shows.
    """

    setting: dict[str, Any]
    a: Profile
    b: Profile
    layers: tuple[LayerPair, ...]
    by_op: dict[str, dict[str, float]]
    peak_gmacs_per_s: float
    causes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; layer pairs stand for the nodes."""
        a, b = (
            {key: value for key, value in side.to_dict().items() if key != "nodes"}
            for side in (self.a, self.b)
        )
        return {
            "setting": self.setting,
            "a": a,
            "b": b,
            "layers": [asdict(pair) for pair in self.layers],
            "by_op": self.by_op,
            "peak_gmacs_per_s": self.peak_gmacs_per_s,
            "causes": list(self.causes),
        }


def explain(a: Path, b: Path, comparison: Comparison, *, input_shape: Given = None) -> Explanation:
    """Profile both files at the comparison's setting, in runs of their own, and find the causes.

    Args:
        input_shape: sizes after the batch, for files that leave them open.
    Raises:
        ArtifactError: a file cannot be opened, or kills the runtime.
        EnvironmentProblem: this onnxruntime lacks the provider, or ran out of memory.
    """
    return explain_pairs({"": (a, b)}, comparison, input_shape=input_shape)[""]


def explain_pairs(
    pairs: Mapping[str, tuple[Path, Path]],
    comparison: Comparison,
    *,
    input_shape: Given = None,
) -> dict[str, Explanation]:
    """`explain` for several pairs by name, each file profiled once."""
    setting = Setting(
        comparison.provider, comparison.batch, comparison.threads, comparison.static_batch
    )
    peak = measured_peak(provider=setting.provider, threads=setting.threads, batch=setting.batch)
    files = dict.fromkeys(path for pair in pairs.values() for path in pair)
    profiles = {path: profile(path, setting, input_shape=input_shape) for path in files}
    return {
        name: explain_profiles(profiles[a], profiles[b], setting, peak)
        for name, (a, b) in pairs.items()
    }


def explain_profiles(a: Profile, b: Profile, setting: Setting, peak: float) -> Explanation:
    """`explain` from profiles already taken."""
    processor = {
        "x86": platform.machine().lower() in ("x86_64", "amd64"),
        "dot_product": has_dot_product(int8_features()),
    }
    found = causes(Evidence(a, b, setting, peak, **processor))
    return Explanation(asdict(setting), a, b, _pairs(a, b), _by_op(a, b), peak, found)


def _pairs(a: Profile, b: Profile) -> tuple[LayerPair, ...]:
    before, after = ({node.layer: node for node in p.nodes if node.layer} for p in (a, b))
    pairs = []
    for name in dict.fromkeys([*before, *after]):
        op = (before.get(name) or after[name]).op
        pairs.append(LayerPair(name, op, _facts(before.get(name)), _facts(after.get(name))))
    return tuple(pairs)


def _facts(node: NodeTime | None) -> dict[str, Any] | None:
    if node is None:
        return None
    rate = node.macs / node.us / 1e3 if node.us else 0.0
    keys = ("us", "channels_in", "channels_out", "group", "macs", "padded", "layout")
    return {**{key: getattr(node, key) for key in keys}, "gmacs_per_s": rate}


def _by_op(a: Profile, b: Profile) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for side, run in (("a", a), ("b", b)):
        for node in run.nodes:
            key = f"{node.op} ({node.layout})" if node.layout else node.op
            row = table.setdefault(key, {"a_us": 0.0, "a_nodes": 0, "b_us": 0.0, "b_nodes": 0})
            row[f"{side}_us"] += node.us
            row[f"{side}_nodes"] += 1
    return dict(sorted(table.items(), key=lambda item: -item[1]["b_us"]))

"""Why no gain: where the time went in both files, and one sentence for every cause that the
numbers show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.benchmark.comparison import Comparison
from stages.benchmark.layers import BLOCKED, PLAIN, REORDERS, NodeTime, Profile, profile
from stages.benchmark.protocol import Setting
from stages.benchmark.roofline import measured_peak

_TINY_US = 10.0  # a node shorter than this is mostly the cost of starting it
_NOTABLE = 0.10  # a cause is worth a sentence from this share of the time on


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

    `causes` says why B is not (much) faster, most important first, or nothing. `peak_gmacs_per_s`
    is what well-shaped convolutions reach on this machine through the same runtime.
    """

    setting: dict[str, Any]
    a: Profile
    b: Profile
    layers: tuple[LayerPair, ...]
    by_op: dict[str, dict[str, float]]
    peak_gmacs_per_s: float
    causes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "a": {key: value for key, value in self.a.to_dict().items() if key != "nodes"},
            "b": {key: value for key, value in self.b.to_dict().items() if key != "nodes"},
            "layers": [asdict(pair) for pair in self.layers],
            "by_op": self.by_op,
            "peak_gmacs_per_s": self.peak_gmacs_per_s,
            "causes": list(self.causes),
        }


def explain(
    a: Path, b: Path, comparison: Comparison, *, input_shape: list[int] | None = None
) -> Explanation:
    """Profile both files at the comparison's setting, in runs of their own, and find the causes."""
    setting = Setting(
        comparison.provider, comparison.batch, comparison.threads, comparison.static_batch
    )
    peak = measured_peak(provider=setting.provider, threads=setting.threads, batch=setting.batch)
    return explain_profiles(
        profile(a, setting, input_shape=input_shape),
        profile(b, setting, input_shape=input_shape),
        setting,
        peak,
    )


def explain_profiles(a: Profile, b: Profile, setting: Setting, peak: float) -> Explanation:
    """`explain` from profiles already taken."""
    causes = [(weight, text) for cause in _CAUSES for weight, text in cause(a, b, setting, peak)]
    ordered = tuple(text for _, text in sorted(causes, key=lambda cause: -cause[0]))
    return Explanation(asdict(setting), a, b, _pairs(a, b), _by_op(a, b), peak, ordered)


def _pairs(a: Profile, b: Profile) -> tuple[LayerPair, ...]:
    sides = [{node.layer: node for node in side.nodes if node.layer} for side in (a, b)]
    names = list(dict.fromkeys([*sides[0], *sides[1]]))
    return tuple(
        LayerPair(
            name,
            (sides[0].get(name) or sides[1][name]).op,
            *(_facts(side.get(name)) for side in sides),
        )
        for name in names
    )


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


# -- causes: each yields (share of B's time it concerns, sentence) ---------------------------------

_Found = list[tuple[float, str]]


def _off_blocked(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Convolutions that fell out of the channel-blocked layout."""
    was = {node.layer: node.layout for node in a.convs}
    lost = [node for node in b.convs if node.layout == PLAIN and was.get(node.layer) == BLOCKED]
    share = b.share(lost)
    if not lost or share < _NOTABLE:
        return []
    worst = sorted(lost, key=lambda node: -node.us)[:3]
    examples = ", ".join(
        f"{node.layer} ({node.channels_in} → {node.channels_out})" for node in worst
    )
    return [
        (
            share,
            f"{len(lost)} of {len(b.convs)} convolutions left onnxruntime's channel-blocked layout because of their "
            f"channel counts and take {share:.0%} of the time: {examples}; "
            "set search.align to 8 or 16 (`rlp doctor --target` measures which)",
        )
    ]


def _padding(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Work on channels that only fill the last block."""
    blocked = [node for node in b.convs if node.layout == BLOCKED]
    real, wasted = sum(node.macs for node in blocked), sum(node.padded for node in blocked)
    if not real or wasted < 0.15 * real:
        return []
    some = next(node for node in sorted(blocked, key=lambda node: -node.padded))
    share = b.share(blocked) * wasted / (real + wasted)
    return [
        (
            share,
            f"the blocked layout pads channels: {wasted / (real + wasted):.0%} of the multiplications in it are on "
            f"zeros, most in {some.layer} ({some.channels_in} → {some.channels_out}); "
            "a search.align of the block's size (16 with AVX-512, else 8) buys them back",
        )
    ]


def _reorders(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Copies between layouts."""
    mine, before = (
        [node for node in run.nodes if node.op in REORDERS or node.op == "Transpose"]
        for run in (b, a)
    )
    share = b.share(mine)
    if share < _NOTABLE or share < a.share(before):
        return []
    return [
        (
            share,
            f"{len(mine)} copies between memory layouts take {share:.0%} of the time ({len(before)} in the base)",
        )
    ]


def _launch_bound(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """So many small nodes that starting them is the work."""
    tiny = [node for node in b.nodes if node.us < _TINY_US]
    share = b.share(tiny)
    if len(tiny) < 20 or share < 0.5:
        return []
    text = (
        f"{len(tiny)} of {len(b.nodes)} nodes run for less than {_TINY_US:.0f} µs and make up {share:.0%} of the time: "
        "starting nodes is most of the work, so removing layers or raising the batch helps more than narrowing"
    )
    return [(share / 2, text)]


def _memory_bound(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Depthwise and element-wise nodes move data; fewer multiplications elsewhere do not speed
    them up.
    """
    moving = [
        node for node in b.nodes if (not node.layer or node.depthwise) and node.op not in REORDERS
    ]
    share = b.share(moving)
    if share < 0.4:
        return []
    ops = sorted({node.op if not node.depthwise else "depthwise Conv" for node in moving})
    return [
        (
            share / 2,
            f"{share:.0%} of the time is in nodes bound by memory rather than arithmetic: {', '.join(ops[:5])}",
        )
    ]


def _unshrunk(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Layers as wide as before."""
    was = {node.layer: (node.channels_in, node.channels_out) for node in a.nodes if node.layer}
    same = [
        n
        for n in b.nodes
        if n.layer and n.macs and was.get(n.layer) == (n.channels_in, n.channels_out)
    ]
    share = b.share(same)
    if not same or share < 0.3:
        return []
    names = ", ".join(node.layer for node in sorted(same, key=lambda node: -node.us)[:3])
    return [
        (
            share,
            f"{len(same)} layers kept their width and take {share:.0%} of the time, above all {names}",
        )
    ]


def _small_cut(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Hardly anything was removed."""
    if not a.macs or not b.macs or b.macs < 0.9 * a.macs:
        return []
    return [(1.0, f"only {1 - b.macs / a.macs:.0%} of the multiply-accumulates were removed")]


def _fallback(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Nodes that another provider ran."""
    away = [node for node in b.nodes if node.provider and node.provider != setting.provider]
    share = b.share(away)
    if not away:
        return []
    return [
        (
            share,
            f"{len(away)} nodes ran on {away[0].provider} instead of {setting.provider}: {share:.0%} of the time",
        )
    ]


def _denormals(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Weights too small for the normal format."""
    if not b.denormals:
        return []
    return [
        (
            1.0,
            f"{b.denormals} denormal weights slow the processor down; export the file again, which sets them to zero",
        )
    ]


def _near_peak(a: Profile, b: Profile, setting: Setting, peak: float) -> _Found:
    """Little left to gain from a better kernel or width."""
    rate = b.macs / b.us / 1e3 if b.us else 0.0
    if not peak or rate < 0.6 * peak:
        return []
    return [
        (
            0.1,
            f"the file runs at {rate:.0f} of this machine's {peak:.0f} GMAC/s: only fewer multiplications help",
        )
    ]


_CAUSES: tuple[Callable[[Profile, Profile, Setting, float], _Found], ...] = (
    _off_blocked,
    _padding,
    _reorders,
    _launch_bound,
    _memory_bound,
    _unshrunk,
    _small_cut,
    _fallback,
    _denormals,
    _near_peak,
)

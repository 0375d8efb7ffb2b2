"""Why a file is not (much) faster than another: one sentence for every cause that profiles show."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import Command, Key
from pipeline.words import agreeing
from stages.benchmark.evidence import NOTABLE, Cause, Evidence, slowest
from stages.benchmark.int8_causes import INT8_CHECKS
from stages.benchmark.node_times import (
    BLOCKED,
    CONVERSIONS,
    INSERTED_CAST,
    PLAIN,
    REORDERS,
    NodeTime,
)

_TINY_US = 10.0  # a node shorter than this is mostly the cost of starting it


def causes(evidence: Evidence) -> tuple[str, ...]:
    """A sentence for each cause, the weightiest first; none where nothing speaks against B."""
    found = [cause for check in _checks(evidence) if (cause := check(evidence)) is not None]
    return tuple(cause.sentence for cause in sorted(found, key=lambda cause: -cause.weight))


def _checks(seen: Evidence) -> tuple[Callable[[Evidence], Cause | None], ...]:
    """Those that apply to B; fp16 against float32 gains without fewer multiplications, as INT8."""
    if seen.b.quantised:
        return (*_CHECKS, *INT8_CHECKS)
    return _CHECKS if seen.b.halves and not seen.a.halves else (*_CHECKS, *_FLOAT_CHECKS)


def _off_blocked(seen: Evidence) -> Cause | None:
    """Convolutions that fell out of the channel-blocked layout for widths that they had not."""
    was = {node.layer: node for node in seen.a.convs if node.layout == BLOCKED}
    convs = seen.b.convs
    lost = [
        node
        for node in convs
        if node.layout == PLAIN and node.layer in was and _width(node) != _width(was[node.layer])
    ]
    share = seen.b.share(lost)
    if not lost or share < NOTABLE:
        return None
    takes = "its channel counts and takes" if len(lost) == 1 else "their channel counts and take"
    return Cause(
        share,
        f"{len(lost)} of {len(convs)} convolutions left onnxruntime's channel-blocked layout "
        f"because of {takes} {share:.0%} of the time: "
        f"{', '.join(_widths(node) for node in slowest(lost))}; "
        f"set {Key('search.align')} to 8 or 16 ({Command('doctor', '--target')} measures which)",
    )


def _width(node: NodeTime) -> tuple[int, int]:
    return node.channels_in, node.channels_out


def _weights_as_inputs(seen: Evidence) -> Cause | None:
    """Weights that a caller may override."""
    count = seen.b.weights_as_inputs
    if not count:
        return None
    return Cause(
        1.0,
        f"{count} weight{'s are' if count > 1 else ' is'} also a graph input, which onnxruntime "
        "may neither fold nor pack for its fast kernels: take them out with its script "
        "remove_initializer_from_input.py",
    )


def _halves(seen: Evidence) -> Cause | None:
    """Casts around kernels that exist in float32 only."""
    casts = [
        node for node in seen.b.nodes if node.op == "Cast" and node.name.startswith(INSERTED_CAST)
    ]
    if not seen.b.halves or not casts:
        return None
    share = seen.b.share(casts)
    return Cause(
        max(share, 0.5),
        f"the file is float16 and {seen.setting.provider} computes it in float32: that halves the "
        f"file, not the work, and {agreeing(len(casts), 'Cast node takes', 'Cast nodes take')} "
        f"{share:.0%} of the time",
    )


def _casts(seen: Evidence) -> Cause | None:
    """Conversions around what the converter left in float32."""
    now, before = (
        [n for n in run.nodes if n.op == "Cast" and not n.name.startswith(INSERTED_CAST)]
        for run in (seen.b, seen.a)
    )
    share = seen.b.share(now)
    if not seen.b.halves or len(now) <= len(before) or share < NOTABLE:
        return None
    return Cause(
        share,
        f"{agreeing(len(now), 'conversion', 'conversions')} between float16 and float32 "
        f"{'takes' if len(now) == 1 else 'take'} {share:.0%} of the time: operators without a "
        f"float16 kernel and those of {Key('quantize.fp16_keep')} stay float32",
    )


def _padding(seen: Evidence) -> Cause | None:
    """Work on channels that only fill the last block."""
    blocked = [node for node in seen.b.convs if node.layout == BLOCKED]
    real, wasted = sum(node.macs for node in blocked), sum(node.padded for node in blocked)
    if not real or wasted < 0.15 * real:
        return None
    share = wasted / (real + wasted)
    worst = max(blocked, key=lambda node: node.padded)
    return Cause(
        seen.b.share(blocked) * share,
        f"the blocked layout pads channels: {share:.0%} of the multiplications in it are on zeros, "
        f"most in {_widths(worst)}; "
        f"a {Key('search.align')} of the block's size (16 with AVX-512, else 8) buys them back",
    )


def _reorders(seen: Evidence) -> Cause | None:
    """Copies between layouts."""
    now, before = (
        [node for node in run.nodes if node.op in REORDERS or node.op == "Transpose"]
        for run in (seen.b, seen.a)
    )
    share = seen.b.share(now)
    if share < NOTABLE or share < seen.a.share(before):
        return None
    copies = agreeing(
        len(now), "copy between memory layouts takes", "copies between memory layouts take"
    )
    return Cause(
        share,
        f"{copies} {share:.0%} of the time ({len(before)} in the base)",
    )


def _launch_bound(seen: Evidence) -> Cause | None:
    """So many small nodes that starting them is the work."""
    tiny = [node for node in seen.b.nodes if node.us < _TINY_US]
    share = seen.b.share(tiny)
    if len(tiny) < 20 or share < 0.5:
        return None
    return Cause(
        share / 2,  # true of the base as well, so it says less than what the cut changed
        f"{len(tiny)} of {len(seen.b.nodes)} nodes run for less than {_TINY_US:.0f} µs and make up "
        f"{share:.0%} of the time: starting nodes is most of the work, so removing layers or "
        "raising the batch helps more than narrowing",
    )


def _memory_bound(seen: Evidence) -> Cause | None:
    """Depthwise and element-wise nodes move data; fewer multiplications elsewhere do not help."""
    moving = [
        node
        for node in seen.b.nodes
        if (not node.layer or node.depthwise) and node.op not in (*REORDERS, *CONVERSIONS)
    ]
    share = seen.b.share(moving)
    if share < 0.4:
        return None
    ops = sorted({node.op if not node.depthwise else "depthwise Conv" for node in moving})
    return Cause(
        share / 2,  # of the base as well, as above
        f"{share:.0%} of the time is in nodes bound by memory rather than arithmetic: "
        f"{', '.join(ops[:5])}",
    )


def _unshrunk(seen: Evidence) -> Cause | None:
    """Layers as wide as before."""
    was = {n.layer: (n.channels_in, n.channels_out) for n in seen.a.nodes if n.layer}
    same = [
        n
        for n in seen.b.nodes
        if n.layer and n.macs and was.get(n.layer) == (n.channels_in, n.channels_out)
    ]
    share = seen.b.share(same)
    if not same or share < 0.3:
        return None
    kept = agreeing(len(same), "layer kept its width and takes", "layers kept their width and take")
    return Cause(
        share,
        f"{kept} {share:.0%} of the time, above all "
        f"{', '.join(node.layer for node in slowest(same))}",
    )


def _small_cut(seen: Evidence) -> Cause | None:
    """Hardly anything was removed."""
    before, after = seen.a.macs, seen.b.macs
    if not before or not after or after < 0.9 * before:
        return None
    if after > 1.005 * before:
        return Cause(1.0, f"it has {after / before:.2f} times the base's multiply-accumulates")
    removed = 1 - after / before
    only = f"only {removed:.0%}" if removed >= 0.005 else "none"
    return Cause(1.0, f"{only} of the multiply-accumulates were removed")


def _fallback(seen: Evidence) -> Cause | None:
    """Nodes that another provider ran."""
    asked = seen.setting.provider
    away = [node for node in seen.b.nodes if node.provider and node.provider != asked]
    if not away:
        return None
    share = seen.b.share(away)
    return Cause(
        share,
        f"{agreeing(len(away), 'node ran on', 'nodes ran on')} {away[0].provider} "
        f"instead of {asked}: {share:.0%} of the time",
    )


def _denormals(seen: Evidence) -> Cause | None:
    """Weights too small for the normal format."""
    if not seen.b.denormals:
        return None
    return Cause(
        1.0,
        f"{seen.b.denormals} denormal weights slow the processor down; "
        "export the file again, which sets them to zero",
    )


def _base_in_int8(seen: Evidence) -> Cause | None:
    """The comparison is the other way round."""
    if not seen.a.quantised:
        return None
    return Cause(2.0, "it computes in float32, and the base in INT8")


def _near_peak(seen: Evidence) -> Cause | None:
    """Little left to gain from a better kernel or width."""
    rate = seen.b.gmacs_per_s
    # a rate above the peak shows that the peak was taken while the machine was busy
    if not 0.6 * seen.peak <= rate <= seen.peak or not rate:
        return None
    return Cause(
        0.1,  # a remark more than a cause: last
        f"the file runs at {rate:.0f} of this machine's {seen.peak:.0f} GMAC/s: "
        "only fewer multiplications help",
    )


def _widths(node: NodeTime) -> str:
    return f"{node.layer} ({node.channels_in} → {node.channels_out})"


_CHECKS: tuple[Callable[[Evidence], Cause | None], ...] = (
    _padding,
    _reorders,
    _launch_bound,
    _memory_bound,
    _fallback,
    _denormals,
    _weights_as_inputs,
    _halves,
    _casts,
)
# INT8 gains without fewer multiplications, and its kernels have no blocked layout
_FLOAT_CHECKS: tuple[Callable[[Evidence], Cause | None], ...] = (
    _base_in_int8,
    _off_blocked,
    _unshrunk,
    _small_cut,
    _near_peak,
)

"""Why an INT8 file is not (much) faster: what stayed float, what it costs to go there and back, and
what this processor lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.errors import Command
from pipeline.words import agreeing, count_of
from stages.benchmark.evidence import NOTABLE, Cause, Evidence, slowest
from stages.benchmark.node_times import CONVERSIONS, REORDERS, NodeTime

_MOVES = (*REORDERS, *CONVERSIONS, "Transpose", "Reshape", "Flatten", "Identity")


def _float_layers(seen: Evidence) -> Cause | None:
    """Convolutions and matrix products without an INT8 kernel, or left out on purpose."""
    layers = [node for node in seen.b.nodes if node.layer]
    stayed = [node for node in layers if not node.integer]
    share = seen.b.share(stayed)
    if not stayed or share < NOTABLE:
        return None
    takes = "takes" if len(stayed) == 1 else "take"
    above_all = ", ".join(node.layer for node in slowest(stayed))
    return Cause(
        share,
        f"{len(stayed)} of {count_of(len(layers), 'layer')} stayed float32 in the INT8 file and "
        f"{takes} {share:.0%} of the time, above all {above_all}",
    )


def _conversions(seen: Evidence) -> Cause | None:
    """Q/DQ pairs that onnxruntime did not fuse."""
    left = [node for node in seen.b.nodes if node.op in CONVERSIONS]
    share = seen.b.share(left)
    if share < NOTABLE:
        return None
    alone = agreeing(
        len(left),
        "QuantizeLinear or DequantizeLinear node fused with no neighbour and takes",
        "QuantizeLinear and DequantizeLinear nodes fused with no neighbour and take",
    )
    return Cause(
        share,
        f"{alone} {share:.0%} of the time: each stretch of float32 between INT8 nodes is converted "
        "to and back",
    )


def _dynamic(seen: Evidence) -> Cause | None:
    """Scales that are found anew at every call."""
    found = [node for node in seen.b.nodes if node.op == "DynamicQuantizeLinear"]
    if not found:
        return None
    share = seen.b.share([*found, *(n for n in seen.b.nodes if n.op in ("Cast", "Mul"))])
    return Cause(
        max(share, 0.5),
        "it is quantised dynamically: "
        f"{agreeing(len(found), 'activation is', 'activations are')} measured anew at every call, "
        "and int32 results go back to float32 by Cast and Mul; all that takes "
        f"{share:.0%} of the time, and "
        f"{Command('quantize', 'MODEL.onnx', '--calibration', 'IMAGES')} fixes the scales once",
    )


def _islands(seen: Evidence) -> Cause | None:
    """Activations and attention without weights, computed in float."""
    alone = [
        node
        for node in seen.b.nodes
        if not node.layer and not node.integer and node.op not in _MOVES
    ]
    share = seen.b.share(alone)
    if share < NOTABLE or _dynamic(seen):  # where all but the products is float anyway
        return None
    nodes = agreeing(
        len(alone),
        "node without weights computes in float32",
        "nodes without weights compute in float32",
    )
    takes = "takes" if len(alone) == 1 else "take"
    return Cause(
        share,
        f"{nodes} ({_operators(alone)}) and {takes} "
        f"{share:.0%} of the time: SiLU, hard-swish and squeeze-and-excitation have no INT8 kernel "
        "here and make islands of float32",
    )


def _operators(nodes: Sequence[NodeTime]) -> str:
    times: dict[str, float] = {}
    for node in nodes:
        times[node.op] = times.get(node.op, 0.0) + node.us
    return ", ".join(sorted(times, key=lambda op: -times[op])[:4])


def _signed_activations(seen: Evidence) -> Cause | None:
    """S8S8, which onnxruntime's documentation recommends first."""
    if not seen.x86 or "int8" not in seen.b.activations:
        return None
    return Cause(
        0.5,
        "activations are int8 (S8S8), for which x86 has no fast kernels: with uint8 activations "
        "(U8S8) nothing is converted and every layer stays INT8",
    )


def _unsigned_weights(seen: Evidence) -> Cause | None:
    """U8U8 where U8S8 has an instruction of its own."""
    if not seen.x86 or not seen.dot_product or "uint8" not in seen.b.weights:
        return None
    return Cause(
        0.5,
        "weights are uint8 (U8U8), which the dot-product instruction of this processor does not "
        "take: int8 weights (U8S8) use it",
    )


def _no_dot_product(seen: Evidence) -> Cause | None:
    """AVX2 alone."""
    layers = [node for node in seen.b.nodes if node.layer and node.integer]
    share = seen.b.share(layers)
    if seen.dot_product or share < NOTABLE:
        return None
    return Cause(
        share / 2,  # a limit of the machine rather than a fault of the file
        "this processor has no VNNI or other dot-product instruction, so the INT8 layers "
        f"({share:.0%} of the time) gain from smaller data more than from faster arithmetic",
    )


def _seven_bits(seen: Evidence) -> Cause | None:
    """What `reduce_range` is about."""
    if not seen.b.seven_bits:
        return None
    why = "because 8 can overflow without VNNI: that costs accuracy and no time"
    if seen.dot_product:
        why = "which this processor does not need: 8 bits would cost less accuracy"
    return Cause(0.0, f"the weights use 7 of their 8 bits (reduce_range), {why}")


INT8_CHECKS: tuple[Callable[[Evidence], Cause | None], ...] = (
    _float_layers,
    _conversions,
    _dynamic,
    _islands,
    _signed_activations,
    _unsigned_weights,
    _no_dot_product,
    _seven_bits,
)

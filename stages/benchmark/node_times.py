"""What a profile consists of: the time of every node, and what the file says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

REORDERS = ("ReorderInput", "ReorderOutput")  # onnxruntime's copies between its layouts
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
INSERTED_CAST = "InsertedPrecisionFreeCast_"  # of what a provider cannot compute in float16
BLOCKED, PLAIN, INT8 = "blocked", "plain", "int8"
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
        weights_as_inputs: weights that a caller may override, so that none is packed or folded.
        halves: whether it is a float16 file.
    """

    nodes: tuple[NodeTime, ...]
    macs: int
    denormals: int
    activations: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    seven_bits: bool = False
    weights_as_inputs: int = 0
    halves: bool = False

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

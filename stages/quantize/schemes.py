"""What is chosen: types of activations and weights, which operators, and how ranges are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pipeline.run.variants import scheme_name

_T = TypeVar("_T")
_ALIKE = 0.1

MULTIPLIES = ("Conv", "Gemm", "MatMul")
_ABSORBED = ("Relu", "Clip")  # into the scale of the convolution before
_INTEGER_KERNELS = (
    *("Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *(
        "Sigmoid",
        "HardSigmoid",
        "LeakyRelu",
        "Flatten",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ),
    *("Pad", "Resize", "Slice", "Split"),
)
OPERATORS: dict[str, tuple[str, ...]] = {
    # whole stretches of the graph in INT8, for which a conversion in the middle would cost more
    "all": (*MULTIPLIES, *_ABSORBED, *_INTEGER_KERNELS),
    "convolutions": (*MULTIPLIES, *_ABSORBED),
}


@dataclass(frozen=True)
class Calibrator:
    """How the range of an activation is taken from what it did on the calibration images.

    Attributes:
        name: of the row in `quantize.json`.
        method: "minmax": the mean over batches of their extremes; "percentile": the values that
            hold this share of all; "entropy": the range whose quantised histogram diverges least.
    """

    name: str
    method: str
    percentile: float = 0.0


CALIBRATORS = (
    Calibrator("minmax", "minmax"),
    Calibrator("percentile 99.9", "percentile", 99.9),
    Calibrator("percentile 99.99", "percentile", 99.99),
    Calibrator("percentile 99.999", "percentile", 99.999),
    Calibrator("entropy", "entropy"),
)


@dataclass(frozen=True)
class Scheme:
    """One way to quantise a graph.

    Attributes:
        activation, weight: "uint8" or "int8"; weights are symmetric around zero.
        operators: key of `OPERATORS`: the types of nodes that are quantised.
        per_channel: a scale for every output channel of a weight.
        reduce_range: 7 bits for the weights, where the machine's kernel overflows with 8.
        calibrator: name of a `Calibrator`.
    """

    activation: str
    weight: str
    operators: str = "all"
    per_channel: bool = True
    reduce_range: bool = False
    calibrator: str = CALIBRATORS[0].name

    @property
    def name(self) -> str:
        """As people call it: U8S8."""
        short = {"uint8": "U8", "int8": "S8"}
        return short[self.activation] + short[self.weight]

    def __str__(self) -> str:
        return scheme_name(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"name": self.name, **asdict(self)}


# in the order in which they are preferred where their times are alike
SCHEMES = (
    Scheme("uint8", "int8"),
    Scheme("uint8", "uint8"),
    Scheme("int8", "int8"),
    Scheme("uint8", "int8", "convolutions"),
)


def fastest_first(found: Sequence[_T], ratio: Callable[[_T], float]) -> list[_T]:
    """What was looked at in the order of `SCHEMES`, by times as fast as fp32.

    A short look is good to a tenth: those as fast as the fastest stay in the order of preference.
    """
    fastest = max(map(ratio, found), default=0.0)
    return sorted(found, key=lambda one: -min(ratio(one), fastest * (1 - _ALIKE)))

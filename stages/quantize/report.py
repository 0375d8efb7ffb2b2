"""What quantising found: all that was tried, and what is delivered, INT8 or fp32, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stages.benchmark.intervals import FASTER
from stages.quantize.schemes import Scheme


@dataclass(frozen=True)
class Score:
    """An INT8 graph against the fp32 one, on the same images.

    Attributes:
        images: how many.
        accuracy, fp32_accuracy: share named correctly; None where there are no labels.
        drop: points of accuracy lost, image by image; without labels the share in percent of the
            images on which the two name another class, which bounds it.
        drop_ci95: its 95 % interval, image by image (`pipeline.paired`).
        top1_agreement: share of the images on which both name the same class.
        output_error: root mean square of the outputs' differences, relative to the standard
            deviation of the fp32 outputs.
    """

    images: int
    accuracy: float | None
    fp32_accuracy: float | None
    drop: float
    drop_ci95: tuple[float, float]
    top1_agreement: float
    output_error: float


@dataclass(frozen=True)
class Timing:
    """An INT8 graph against the fp32 one, in alternating slots.

    Attributes:
        ratio: time of fp32 ÷ time of INT8; None: not timed.
        ci95: its interval; None where it was only looked at.
        verdict: of the INT8 graph, as the benchmark words it.
        ms: median milliseconds of a call of fp32 and of INT8.
    """

    ratio: float
    ci95: tuple[float, float] | None = None
    verdict: str = ""
    ms: tuple[float, float] | None = None

    @property
    def faster(self) -> bool:
        """Whether it was shown: by the interval, and by what A against itself gave beside it."""
        return self.ci95 is not None and self.ci95[0] > 1 and self.verdict == FASTER


@dataclass(frozen=True)
class Tried:
    """One scheme that was tried, with what was measured of it.

    Attributes:
        exclude: names of the nodes that were left float.
        steps: what was done for its accuracy besides, such as "bias correction".
    """

    scheme: Scheme
    timing: Timing | None = None
    score: Score | None = None
    exclude: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Tried:
        """Inverse of `dataclasses.asdict`."""
        timing, score = record["timing"], record["score"]
        return cls(
            Scheme(**record["scheme"]),
            timing and Timing(**timing),
            score and Score(**score),
            tuple(record["exclude"]),
            tuple(record["steps"]),
        )

    def point(self) -> dict[str, Any] | None:
        """A row of `curve` in `quantize.json`: accuracy against latency by the number of nodes left
        float; None where one of the two was not measured.
        """
        timing, score = self.timing, self.score
        if timing is None or timing.ci95 is None or score is None:
            return None
        accuracy = score.top1_agreement if score.accuracy is None else score.accuracy
        speed = {"ratio": timing.ratio, "ci95": list(timing.ci95)}
        return {"float_nodes": len(self.exclude), "accuracy": accuracy, **speed}

    def to_dict(self) -> dict[str, Any]:
        """A row of `tried` in `quantize.json`."""
        timing, score = self.timing, self.score
        return {
            "scheme": self.scheme.to_dict(),
            "accuracy": score.accuracy if score else None,
            "top1_agreement": score.top1_agreement if score else None,
            "output_error": score.output_error if score else None,
            "images": score.images if score else 0,
            "ratio": timing.ratio if timing else None,
            "ci95": list(timing.ci95) if timing and timing.ci95 else None,
            "float_nodes": len(self.exclude),
            "steps": list(self.steps),
        }


@dataclass(frozen=True)
class QuantizeReport:
    """The outcome for one file.

    Attributes:
        chosen: "int8" or "fp32": which one is to be delivered.
        reason: why, in one sentence.
        best: the scheme of the INT8 file, with its score on all search images and its timing; None
            where there is no INT8 file.
        float_nodes: names of nodes of the INT8 file that compute in float32.
        tried: everything that was looked at, in order.
        calibration: images, images a batch, and bytes of activations an image.
        machine: instruction sets for INT8, and which types overflow 16 bits here.
        file: sha256, bytes and opset of the INT8 file; empty where there is none.
        seconds: of each phase.
    """

    chosen: str
    reason: str
    best: Tried | None = None
    float_nodes: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()
    calibration: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    file: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the body of `quantize.json` but for `mode` and `base`."""
        best = self.best
        timing, score = (best.timing, best.score) if best else (None, None)
        return {
            "chosen": self.chosen,
            "reason": self.reason,
            "scheme": best.scheme.to_dict() if best else None,
            "steps": list(best.steps) if best else [],
            "accuracy": _accuracy(score),
            "parity": _parity(score),
            "speed": asdict(timing) if timing else None,
            "float_nodes": list(self.float_nodes),
            "curve": [row for tried in self.tried if (row := tried.point())],
            "tried": [tried.to_dict() for tried in self.tried],
            "calibration": self.calibration,
            "machine": self.machine,
            "file": self.file,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def _accuracy(score: Score | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {
        "fp32": score.fp32_accuracy,
        "int8": score.accuracy,
        "drop": score.drop,
        "drop_ci95": list(score.drop_ci95),
        "images": score.images,
    }


def _parity(score: Score | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {"top1_agreement": score.top1_agreement, "output_error": score.output_error}

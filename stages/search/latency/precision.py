"""`search.precision`: whether candidates are timed as they are or quantised.

A latency budget is always a share of what the original takes in fp32, for that is what users have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import onnx
import torch
from torch import nn

from pipeline.channels.rebuild import rebuild
from pipeline.config.search import SearchConfig
from pipeline.errors import ArtifactError, Hint, Refused, Set
from pipeline.run.variants import FP32, INT8
from stages.benchmark.latency import LatencyWorker
from stages.export.exporter import export_proto
from stages.quantize.schemes import Scheme
from stages.search.latency.quantized import fastest_scheme
from stages.search.latency.timer import TimingSetting

AUTO = "auto"
FASTER = 1.05  # times as fast as fp32 INT8 must look at a glance, which errs by a few percent


@dataclass(frozen=True)
class SettledPrecision:
    """Precision of the candidates of a search.

    Attributes:
        scheme: how they are quantised; None: they are not.
        document: what that was derived from, as plain JSON types; None where fp32 was asked for.
    """

    scheme: Scheme | None = None
    document: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """ "fp32" or "int8"."""
        return FP32 if self.scheme is None else INT8

    @property
    def label(self) -> str:
        """With the scheme, since other ones have other times: "int8 U8S8 all"."""
        if self.scheme is None:
            return FP32
        return f"{INT8} {self.scheme.name} {self.scheme.operators}"


@dataclass(frozen=True)
class Int8Speed:
    """The original in INT8 by its fastest scheme.

    Attributes:
        fraction: of what it takes in fp32.
        seconds: in fp32.
    """

    scheme: Scheme
    fraction: float
    seconds: float


def settle_precision(
    settings: SearchConfig,
    mode: str,
    measure: Callable[[], Int8Speed],
    *,
    begun: object = None,
    note: Callable[[str], None] = lambda text: None,
) -> SettledPrecision:
    """The precision that `search.precision` gives; it is measured only where it makes a difference.

    Args:
        mode: `quantize.mode`: without INT8 files, `auto` is fp32.
        measure: times the original in INT8 (`Int8Timing`).
        begun: the document of an interrupted search, which goes on as it began.
        note: told what was found.
    Raises:
        Refused: int8 was asked for and onnxruntime cannot make it of this network.
    """
    matters = settings.budget.metric == "latency" or settings.align == AUTO
    if settings.precision == FP32 or not matters:
        return SettledPrecision()
    if kept := _settled(begun):
        return kept
    if settings.precision == AUTO and mode == "off":
        return _fp32(settings, "quantize.mode is off")
    try:
        speed = measure()
    except (ArtifactError, Refused) as error:
        reason = f"onnxruntime cannot run it in INT8: {error.message}"
        if settings.precision == INT8:
            hint = Hint(Set("search.precision", FP32))
            raise Refused(f"search.precision=int8: {reason}", hint=hint) from None
        return _fp32(settings, reason)
    ratio = f"INT8 alone is {1 / speed.fraction:.2f}× as fast as fp32 here ({speed.scheme.name})"
    if settings.precision == AUTO and speed.fraction * FASTER > 1:
        found = _fp32(settings, ratio, speed)
    elif settings.precision == AUTO and (enough := _enough(settings, speed)):
        found = _fp32(settings, f"{ratio}, which keeps {enough} without any cut", speed)
    else:
        found = SettledPrecision(speed.scheme, _document(settings, INT8, ratio, speed))
    note(f"candidates are timed in {found.name}: {ratio}")
    return found


def _enough(settings: SearchConfig, speed: Int8Speed) -> str:
    """The latency budget that INT8 alone keeps; "" where there is more to do."""
    key, value = settings.budget.given
    fraction = {"latency": value, "latency_ms": value / (speed.seconds * 1e3)}.get(key, 0.0)
    return f"search.budget.{key}={value:g}" if speed.fraction <= fraction else ""


def _fp32(settings: SearchConfig, reason: str, speed: Int8Speed | None = None) -> SettledPrecision:
    return SettledPrecision(None, _document(settings, FP32, reason, speed))


def _document(
    settings: SearchConfig, used: str, reason: str, speed: Int8Speed | None
) -> dict[str, Any]:
    measured = {"fraction": speed.fraction, "scheme": asdict(speed.scheme)} if speed else {}
    return {"asked": settings.precision, "used": used, "reason": reason, **measured}


def _settled(document: object) -> SettledPrecision | None:
    """What an earlier `settle_precision` gave, from its document; None for anything else."""
    if not isinstance(document, dict):
        return None
    if document.get("used") == FP32:
        return SettledPrecision(None, document)
    given = document.get("scheme")
    if document.get("used") != INT8 or not isinstance(given, dict):
        return None
    if set(given) != {one.name for one in fields(Scheme)}:
        return None
    return SettledPrecision(Scheme(**given), document)


@dataclass(frozen=True)
class Int8Timing:
    """Exports a network, and times it quantised against itself.

    Attributes:
        example: (N, C, H, W) to export with.
    """

    model: nn.Module
    example: torch.Tensor
    setting: TimingSetting

    def __call__(self) -> Int8Speed:
        """Raises ArtifactError or Refused where that cannot be done."""
        proto = self._exported()
        with LatencyWorker(proto.SerializeToString(), **self.setting._asdict()) as worker:
            scheme, found = fastest_scheme(proto, worker)
        return Int8Speed(scheme, found.fraction, found.reference_seconds)

    def _exported(self) -> onnx.ModelProto:
        model = rebuild(self.model, {}, ()).cpu()  # the search goes on where it is
        return export_proto(model, self.example.cpu())

"""Ranges of the activations, from one pass over the images in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.runtime.quantizer import Quantizer, Ranges
from stages.quantize.images import Batches, first
from stages.quantize.schemes import CALIBRATORS

_MEMORY = 256 << 20  # bytes of activations of one batch that may be held at once
_BATCH = 32  # the mean of the batches' extremes depends on it


@dataclass(frozen=True)
class Calibration:
    """What a `Quantizer` has seen, asked for by calibrator.

    Attributes:
        images: how many were seen, `batch` at a time.
        bytes_per_image: of the activations watched.
        infinite: activations that were not finite; what touches them stays float.
    """

    quantizer: Quantizer
    images: int
    batch: int
    bytes_per_image: int
    _known: dict[str, Ranges] = field(default_factory=dict)

    @cached_property
    def infinite(self) -> tuple[str, ...]:
        return tuple(self.quantizer.ranges("minmax")[1])

    def ranges(self, calibrator: str) -> Ranges:
        """Lowest and highest value of every activation, by the calibrator of this name."""
        if calibrator not in self._known:
            how = next(one for one in CALIBRATORS if one.name == calibrator)
            self._known[calibrator] = self.quantizer.ranges(how.method, how.percentile)[0]
        return self._known[calibrator]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        facts = {name: getattr(self, name) for name in ("images", "batch", "bytes_per_image")}
        return {**facts, "infinite": list(self.infinite)}


def calibrate(
    quantizer: Quantizer, tensors: Sequence[str], images: Batches, count: int, fixed: int | None
) -> Calibration:
    """Watch `tensors` while the first `count` images run through the float graph.

    Args:
        fixed: the batch that the file has in its graph; None where it is free.
    Raises:
        ArtifactError: there are no images, or the graph does not take them.
    """
    size, batch, seen = 0, fixed or 1, 0
    for x, _ in first(images, 1, 1):  # its shape alone, for a file may leave it open
        size = quantizer.watch(tensors, x.shape[1:])
        batch = fixed or max(1, min(_BATCH, _MEMORY // max(1, size)))
    for x, _ in first(images, count, batch):
        if fixed and len(x) < fixed:
            continue
        quantizer.observe(x)
        seen += len(x)
    if not seen:
        raise ArtifactError(
            "there are no images to calibrate with",
            hint=f"at least {fixed or 1} of what the network was trained on are needed",
        )
    return Calibration(quantizer, seen, batch, size)

"""Whether a run makes fp16 files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.schema import Config


def makes_fp16(config: Config) -> bool:
    """They are asked for, or the benchmark's provider works on a GPU."""
    from pipeline.runtime.providers import find_provider  # numpy comes with its neighbours

    asked = config.quantize.fp16
    gpu = find_provider(config.benchmark.provider).device is not None
    return asked == "on" or (asked == "auto" and gpu)

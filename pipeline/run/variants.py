"""The files that a run ends with, by name: two networks, in fp32 and, where made, INT8 and fp16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FP32, INT8, FP16 = "fp32", "int8", "fp16"
"""The precisions of a file."""

VARIANTS = {
    "base": "original",
    "base_int8": "original, INT8 alone",
    "base_fp16": "original, fp16 alone",
    "final": "pruned",
    "final_int8": "pruned, INT8",
    "final_fp16": "pruned, fp16",
}
"""What they are called before people."""

PRECISIONS = {FP32: "fp32", INT8: "INT8", FP16: "fp16"}
"""And precisions."""


def scheme_name(scheme: Mapping[str, Any]) -> str:
    """A scheme of `quantize.json` in words: `U8S8, per channel, percentile 99.99`."""
    parts = [scheme["name"], "per channel" if scheme["per_channel"] else "per tensor"]
    parts += ["7-bit weights"] if scheme["reduce_range"] else []
    parts += [] if scheme["operators"] == "all" else [f"{scheme['operators']} only"]
    return ", ".join([*parts, scheme["calibrator"]])

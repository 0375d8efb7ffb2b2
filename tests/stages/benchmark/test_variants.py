"""Which variant is delivered, and what is said of INT8 alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError
from stages.benchmark.variants import VariantFile, delivered, remarks

FILES = [
    VariantFile(network, precision, Path(network), "")
    for network in ("base", "final")
    for precision in ("fp32", "int8", "fp16")
]
BASE = {"chosen": "fp32", "reason": "onnxruntime refuses it"}
FP32 = {"mode": "auto", "chosen": "fp32", "reason": "INT8 loses 9 points", "base": BASE}
INT8 = {"mode": "auto", "chosen": "int8", "reason": "INT8 is 2.00× as fast", "base": BASE}


def alone(ratio: float, verdict: str, points: float) -> dict[str, Any]:
    better = verdict == "slower" and points <= 0
    ci95 = [ratio - 0.1, ratio + 0.1]
    return {"ratio": ratio, "ci95": ci95, "verdict": verdict, "points": points, "better": better}


def test_the_quantize_stage_decides() -> None:
    names = ["base", "base_int8", "base_fp16", "final", "final_int8", "final_fp16"]
    assert [file.name for file in FILES] == names
    assert FILES[delivered(FILES, {"chosen": "fp16"})].name == "final_fp16"
    assert FILES[delivered(FILES, INT8)].name == "final_int8"
    assert FILES[delivered(FILES, FP32)].name == "final"
    with pytest.raises(ArtifactError, match="delivers int8, and there is no such file"):
        delivered(FILES[:4], INT8)


def test_int8_alone_is_named_where_it_is_the_better_choice() -> None:
    (said,) = remarks({"int8": alone(0.8, "slower", -0.5)}, INT8)
    assert said.startswith("INT8 alone is better here")
    assert (
        "1.25× (1.11 to 1.43) as fast as the delivered file at no less accuracy (+0.50 points)"
        in said
    )
    assert remarks({"int8": alone(1.4, "faster", -0.5)}, INT8) == []


def test_a_gain_over_int8_alone_that_was_not_shown_is_said() -> None:
    (said,) = remarks({"int8": alone(1.02, "no difference shown", 0.3)}, INT8)
    assert said.startswith("no gain over INT8 alone shown: 1.02× (0.92 to 1.12) as fast, +0.30")
    (said,) = remarks({"int8": alone(0.8, "slower", 0.3)}, INT8)
    assert "no gain over INT8 alone shown" in said


def test_fp32_is_delivered_with_the_reason_unless_nobody_asked_for_int8() -> None:
    faster = {"int8": alone(1.4, "faster", 0.0)}
    assert remarks(faster, FP32) == ["fp32 is delivered: INT8 loses 9 points"]
    assert remarks({}, {**FP32, "mode": "off"}) == []


def test_why_int8_alone_is_not_there_is_said() -> None:
    assert remarks({}, INT8) == ["INT8 alone is not in the table: onnxruntime refuses it"]


def test_fp16_alone_is_held_against_the_delivered_file_as_int8_alone_is() -> None:
    made = {"chosen": "fp16", "reason": "fp16 is 2.00× as fast"}
    base = {**BASE, "fp16": {**made, "reason": "fp16 does not run: no kernel"}}
    off = {"mode": "off", "chosen": "fp16", "reason": "", "base": base, "fp16": made}
    assert remarks({"fp16": alone(1.4, "faster", 0.0)}, off) == []
    (said,) = remarks({"fp16": alone(0.8, "slower", -0.5)}, off)
    assert said.startswith("fp16 alone is better here: the original in fp16 is 1.25×")
    assert remarks({}, off) == ["fp16 alone is not in the table: fp16 does not run: no kernel"]

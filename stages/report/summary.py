"""`summary.json`: the numbers of a run for machines, as benchmark and export measured them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.run.artifacts import KINDS

PLACES: dict[str, Any] = {
    "report": "report/report.html",
    "onnx": {
        "fp32": f"{KINDS['onnx'].maker}/{KINDS['onnx'].file}",
        "int8": f"{KINDS['onnx_int8'].maker}/{KINDS['onnx_int8'].file}",
        "fp16": f"{KINDS['onnx_fp16'].maker}/{KINDS['onnx_fp16'].file}",
    },
}
"""Where the files lie that a summary names, relative to the run."""
_VARIANT = ("name", "precision", "accuracy", "macs", "bytes", "ratio", "ci95", "verdict", "chosen")
_SPEEDUP = ("ratio", "ci95", "aa_ci95", "verdict", "provider", "batch", "threads")


def summarise(
    run: str,
    benchmark: Mapping[str, Any],
    parity: Mapping[str, Any],
    quantization: Mapping[str, Any],
    report: str,
    onnx: Mapping[str, str],
) -> dict[str, Any]:
    """The document of `rlp pipeline run --json`.

    Args:
        run: name of the run.
        benchmark, parity, quantization: contents of `benchmark.json`, `parity.json` and
            `quantize.json`.
        report: path of the page, relative to the run folder, and so in `onnx`.
        onnx: path of the final network by precision, "fp32", "int8" and "fp16".
    """
    first, data, final = benchmark["settings"][0], benchmark["data"], parity["final"]
    precision = benchmark["final"]["precision"]
    agreement = _agreement(parity, quantization)
    return {
        "run": run,
        "data": {"name": data["label"], "label": data["label"], "test_images": data["test_images"]},
        "base": {
            **_side(benchmark["base"]),
            "near_chance": benchmark["base"].get("near_chance", False),
        },
        "final": {**_side(benchmark["final"]), "precision": precision},
        "variants": [
            _variant(row, benchmark, agreement[row["name"]]) for row in benchmark["variants"]
        ],
        "speedup": {
            **{key: first[key] for key in _SPEEDUP},
            "precision": precision,
            "doubts": list(first.get("doubts", ())),  # runs of older releases have none
        },
        "parity": {key: final[key] for key in ("top1_agreement", "max_abs")},
        "remarks": list(benchmark["remarks"]),
        "report": report,
        "onnx": onnx[precision],
        "deploy": KINDS["deployed"].maker,
    }


def _variant(
    row: Mapping[str, Any], benchmark: Mapping[str, Any], agreement: float | None
) -> dict[str, Any]:
    network = row["name"].partition("_")[0]
    return {
        **{key: row[key] for key in _VARIANT},
        "accuracy_change": row.get("accuracy_change"),  # runs of older releases have none
        "params": benchmark[network]["params"],
        "latency_ms": _latency(row),
        "top1_agreement": agreement,
    }


def _agreement(
    parity: Mapping[str, Any], quantization: Mapping[str, Any]
) -> dict[str, float | None]:
    """By variant: of fp32 with PyTorch, of INT8 and fp16 with fp32; None where nothing was
    compared.
    """
    found: dict[str, float | None] = {}
    for network, facts in (("base", quantization["base"]), ("final", quantization)):
        found[network] = parity[network]["top1_agreement"]
        for precision, made in (("int8", facts), ("fp16", facts.get("fp16") or {})):
            parity_there = made.get("parity") or {}
            found[f"{network}_{precision}"] = parity_there.get("top1_agreement")
    return found


def _latency(side: Mapping[str, Any]) -> dict[str, Any]:
    return {key: side["latency_ms"][key] for key in ("p50", "p90")}


def _side(side: Mapping[str, Any]) -> dict[str, Any]:
    costs = {key: side[key] for key in ("accuracy", "macs", "params", "bytes")}
    return {**costs, "latency_ms": _latency(side)}

"""`summary.json`: the numbers of a run for machines, taken from what benchmark and export
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 1


def summarise(
    run: str, benchmark: Mapping[str, Any], parity: Mapping[str, Any], report: str, onnx: str
) -> dict[str, Any]:
    """The document of `rlp pipeline run --json`.

    Args:
        run: name of the run.
        benchmark, parity: contents of `benchmark.json` and `parity.json`.
        report, onnx: paths of the page and of the final network, relative to the run folder.
    """
    first = benchmark["settings"][0]
    data = benchmark["data"]
    return {
        "kind": "summary",
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "data": {"name": data["label"], "label": data["label"], "test_images": data["test_images"]},
        "base": _side(benchmark["base"]),
        "final": _side(benchmark["final"]),
        "speedup": {
            "ratio": first["ratio"],
            "ci95": first["ci95"],
            "aa_ci95": first["aa_ci95"],
            "verdict": first["verdict"],
            "provider": first["provider"],
            "batch": first["batch"],
            "threads": first["threads"],
        },
        "parity": {
            "top1_agreement": parity["final"]["top1_agreement"],
            "max_abs": parity["final"]["max_abs"],
        },
        "report": report,
        "onnx": onnx,
    }


def _side(side: Mapping[str, Any]) -> dict[str, Any]:
    latency = {"p50": side["latency_ms"]["p50"], "p90": side["latency_ms"]["p90"]}
    return {
        **{key: side[key] for key in ("accuracy", "macs", "params", "bytes")},
        "latency_ms": latency,
    }

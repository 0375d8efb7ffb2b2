"""`summary.json`: the numbers of a run for machines, as benchmark and export measured them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SPEEDUP = ("ratio", "ci95", "aa_ci95", "verdict", "provider", "batch", "threads")


def summarise(
    run: str, benchmark: Mapping[str, Any], parity: Mapping[str, Any], report: str, onnx: str
) -> dict[str, Any]:
    """The document of `rlp pipeline run --json`.

    Args:
        run: name of the run.
        benchmark, parity: contents of `benchmark.json` and `parity.json`.
        report, onnx: paths of the page and of the final network, relative to the run folder.
    """
    first, data, final = benchmark["settings"][0], benchmark["data"], parity["final"]
    return {
        "run": run,
        "data": {"name": data["label"], "label": data["label"], "test_images": data["test_images"]},
        "base": _side(benchmark["base"]),
        "final": _side(benchmark["final"]),
        "speedup": {key: first[key] for key in _SPEEDUP},
        "parity": {key: final[key] for key in ("top1_agreement", "max_abs")},
        "report": report,
        "onnx": onnx,
    }


def _side(side: Mapping[str, Any]) -> dict[str, Any]:
    latency = {key: side["latency_ms"][key] for key in ("p50", "p90")}
    costs = {key: side[key] for key in ("accuracy", "macs", "params", "bytes")}
    return {**costs, "latency_ms": latency}

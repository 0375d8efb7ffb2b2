"""Original and final network in each precision; and how the files in lower ones were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.claims import interval_text
from pipeline.run.variants import VARIANTS, scheme_name
from pipeline.words import size
from stages.report import plots
from stages.report.views.timing import ratio_cells
from stages.report.views.wording import interval, ms


def variant_rows(variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the first table: accuracy, latency and speed at the first setting, what it takes."""
    return [
        {
            "name": VARIANTS[row["name"]],
            "chosen": row["chosen"],
            "accuracy": f"{row['accuracy']:.2%}",
            "change": interval_text(row["accuracy_change"]) if row.get("accuracy_change") else "",
            "p50": ms(row["latency_ms"]["p50"]),
            **(ratio_cells(row) if row["settings"] else {"ratio": "1", "ci": ""}),
            "size": size(row["bytes"]),
            "memory": size(row["memory_bytes"]) if row.get("memory_bytes") else "",
        }
        for row in variants
    ]


def quantization_sentences(quantization: Mapping[str, Any]) -> list[str]:
    """What was chosen and why; empty where nothing was quantised."""
    scheme, half = quantization.get("scheme"), quantization.get("fp16")
    if quantization["mode"] == "off" and not half:
        return []
    found = [f"Delivered: {quantization['chosen']}. {quantization['reason']}."]
    if scheme:
        found.append(f"The INT8 file is {scheme_name(scheme)}.{_accuracies(quantization)}")
    if nodes := quantization.get("float_nodes"):
        # onnxruntime computes some of them in INT8 all the same, between INT8 neighbours
        found.append(f"{len(nodes)} of its nodes were not quantised: {_some(nodes)}.")
    if half:
        found.append(f"In fp16: {half['reason']}.")
        if nodes := half["float_nodes"]:
            found.append(f"{len(nodes)} of its nodes stayed float32: {_some(nodes)}.")
    return found


def _accuracies(quantization: Mapping[str, Any]) -> str:
    accuracy = quantization.get("accuracy")
    if not accuracy or accuracy["int8"] is None:
        return ""
    return f" On the search split fp32 has {accuracy['fp32']:.2%} and INT8 {accuracy['int8']:.2%}."


def _some(names: Sequence[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def tried_rows(quantization: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every scheme that was tried, in order; blank where it was not asked that."""
    return [
        {
            "scheme": scheme_name(row["scheme"]),
            "float_nodes": str(row["float_nodes"] or ""),
            "accuracy": _share(row["accuracy"]),
            "agreement": _share(row["top1_agreement"]),
            "images": f"{row['images']:,}" if row["images"] else "",
            "ratio": f"{row['ratio']:.2f}×" if row["ratio"] else "",
            "ci": interval(row["ci95"]) if row["ci95"] else "",
        }
        for row in quantization["tried"]
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def curve_plot(quantization: Mapping[str, Any]) -> str:
    """Accuracy against speed by the number of float nodes; empty below two points."""
    points = [
        (row["ratio"], *(row["ci95"] or (row["ratio"],) * 2), row["accuracy"], row["float_nodes"])
        for row in quantization.get("curve") or ()
        if row["accuracy"] is not None and row["ratio"]
    ]
    return plots.float_nodes(points) if len(points) > 1 else ""

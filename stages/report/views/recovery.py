"""What proves the cut, what went before it, what recovery gave, and what the ONNX file says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.words import count_of
from stages.report import plots


def proof_sentence(cut: Mapping[str, Any]) -> str:
    """How cut and masked were compared."""
    proof = cut["proof"]
    return (
        "The cut network equals the whole one with the same channels silenced: "
        f"largest difference {proof['relative']:.1e} of the largest output, in {proof['dtype']}, "
        f"on {proof['images']} real images ({proof['tolerance']:.0e} allowed)."
    )


def rotation_sentence(rotation: Mapping[str, Any]) -> str:
    """Which channels are principal components; empty where none are."""
    groups = [group["id"] for group in rotation["groups"]]
    if not groups:
        return ""
    return (
        f"Before the search the channels of {count_of(len(groups), 'linear trunk')} were turned to "
        f"principal components ({', '.join(groups)}): the same function, the largest difference "
        f"{rotation['difference']:.1e} of the largest output in float64."
    )


def recovery_sentence(reconstruction: Mapping[str, Any], distill: Mapping[str, Any]) -> str:
    """What each step of the recovery gave, on the search split."""
    accuracy, before = distill["search_accuracy"], reconstruction["accuracy"]
    fitted = "reconstructed" in before
    squares = f"after least squares {before['reconstructed']:.2%}, " if fitted else ""
    epochs = len(_history(distill))
    if own := distill.get("weights"):
        ending = f"with the weights of your own training ({own['name']}) {accuracy['final']:.2%}"
    else:
        trained = f", after {count_of(epochs, 'epoch')} ({distill['mode']}) {accuracy['final']:.2%}"
        settled = f"after batch-norm re-estimation {accuracy['batchnorm']:.2%}"
        ending = settled + (trained if epochs else "")
    return (
        f"On the search split: teacher {accuracy['teacher']:.2%}; "
        f"after the cut {before['cut']:.2%}, {squares}{ending}."
    )


def _history(distill: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return distill["training"]["history"] if distill["training"] else []


def recovery_plot(
    reconstruction: Mapping[str, Any], distill: Mapping[str, Any], images: int
) -> str:
    """Every step from the cut on, with what was kept.

    Args:
        images: of the search split, on which all of them are scored.
    """
    accuracy, before = distill["search_accuracy"], reconstruction["accuracy"]
    states = {"as cut": before["cut"]}
    if "reconstructed" in before:
        states["least squares"] = before["reconstructed"]
    came = list(states)[-1]
    states["batch norm"] = accuracy["batchnorm"]
    kept = {"cut": came, "batchnorm": "batch norm"}.get(distill["kept"], distill["kept"])
    if distill["kept"] == "adopted":
        states["your weights"], kept = accuracy["final"], "your weights"
    teacher = accuracy["teacher"]
    return plots.recovery(
        {name: 100 * value for name, value in states.items()},
        [100 * row["accuracy"] for row in _history(distill)],
        kept,
        100 * teacher,
        196 * math.sqrt(teacher * (1 - teacher) / max(images, 1)),
    )


def parity_sentence(parity: Mapping[str, Any]) -> str:
    """Agreement of the final file with PyTorch."""
    final = parity["final"]
    return (
        f"On {parity['images']} images of the search split onnxruntime names the same class as "
        f"PyTorch on {final['top1_agreement']:.2%}; "
        f"the largest difference between outputs is {final['max_abs']:.1e}. "
        f"Exported by {final['export']['exporter']}, opset {final['export']['opset']}."
    )

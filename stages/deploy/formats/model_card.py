"""`README.md`: a model card that people and Hugging Face's hub read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.run.variants import PRECISIONS, VARIANTS
from pipeline.words import count_of
from stages.deploy.deployment import Deployment, Files

_CARD = """\
---
library_name: onnx
pipeline_tag: image-classification
tags: [image-classification, onnx, rlp]
license: {license_key}
---

# {run}

An image classifier with {classes} classes, made smaller and faster by rlp. `model.onnx` computes in
{precision}: {reason}.

    python predict.py photo.jpg        # needs onnxruntime, numpy and pillow

## Measured

{table}

Accuracy: {data}, {images} test images, through onnxruntime. Latency: {setting}, median of a call,
all files in alternating slots; the interval is that of the ratio of times. Machine: {machine}.

## Input

{channels} of {height}×{width} pixels, {resize}, bilinear; upright by its EXIF data; 16-bit grey
by its high byte; transparency dropped; then (value / 255 - mean) / std with mean {mean} and
std {std}.
Hugging Face's processors do the same but for EXIF data, and take no grey pictures.

## Files

| file | what it is |
|---|---|
{files}

## Verify

`manifest.json` has the sha256 of every file, and a seal over itself; `predict.py` and `rlp predict`
compare them before they load a network. `model_uint8.onnx` and `model.onnx` differ by at most
{difference:.1g} in any probability. Made with {versions}.

## Licence

Network: {license}. Data: {data_license}. `predict.py`: MIT.
"""
_FILES = {
    "model.onnx": "the network: float32 (N, C, H, W), normalised, to logits",
    "model_fp32.onnx": "the same in float32",
    "model_int8.onnx": "the same in INT8",
    "model_fp16.onnx": "the same in fp16, with float32 input and output",
    "model_uint8.onnx": "`model.onnx` with uint8 (N, H, W, C) pixels in and probabilities out",
    "labels.txt": "class names, by index",
    "config.json": "for Hugging Face: `ORTModelForImageClassification`",
    "preprocessor_config.json": "for Hugging Face: `AutoImageProcessor`",
    "triton/": "a repository for NVIDIA Triton; rename `classifier` as you like",
    "predict.py": "ranked labels on the command line, and `Classifier` to import",
}


def files(made: Deployment) -> Files:
    """The card, where the Hub shows it."""
    return {"README.md": card(made).encode()}


def card(made: Deployment) -> str:
    """The text of the card."""
    spec, measured, settings = made.preprocessing, made.benchmark, made.settings
    first = measured["settings"][0]
    resized = {"crop": "shorter side resized, then the middle", "squash": "both sides resized"}
    provider = str(first["provider"]).removesuffix("ExecutionProvider")
    made_in = made.networks if len(made.networks) > 1 else ()
    left_out = {f"model_{precision}.onnx" for precision in PRECISIONS if precision not in made_in}
    here = {name: what for name, what in _FILES.items() if name not in left_out}
    return _CARD.format(
        license_key=settings.get("license") or "other",
        run=made.run,
        classes=len(made.classes),
        precision={"fp32": "float32", "int8": "INT8", "fp16": "fp16"}[made.chosen],
        reason=made.reason,
        table=_table(measured["variants"]),
        data=measured["data"]["label"],
        images=f"{measured['data']['test_images']:,}",
        setting=f"{provider}, batch {first['batch']}, {count_of(first['threads'], 'thread')}",
        machine=measured["machine"].get("cpu") or "unknown",
        channels="Grey pictures" if spec.channels == 1 else "RGB pictures",
        height=spec.height,
        width=spec.width,
        resize=resized[spec.resize],
        mean=_numbers(spec.mean),
        std=_numbers(spec.std),
        files="\n".join(f"| `{name}` | {what} |" for name, what in here.items()),
        difference=made.difference,
        versions=", ".join(f"{name} {number}" for name, number in sorted(made.versions.items())),
        license=settings.get("license") or "not stated",
        data_license=settings.get("data_license") or "not stated",
    )


def _table(variants: Sequence[Mapping[str, Any]]) -> str:
    """A line for each file that was timed, against the first."""
    lines = [
        "| network | accuracy | ms a call | times as fast (95 % interval) | bytes |",
        "|---|---|---|---|---|",
    ]
    for row in variants:
        fast = "{:.2f} ({:.2f} … {:.2f})".format(row["ratio"], *row["ci95"])
        delivered = " (delivered)" if row["chosen"] else ""
        p50 = row["latency_ms"]["p50"]
        cells = (
            VARIANTS[row["name"]] + delivered,
            f"{row['accuracy']:.2%}",
            "" if p50 is None else f"{p50:.3f}",
            "1" if row is variants[0] else f"{fast}, {row['verdict']}",
            f"{row['bytes']:,}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)

"""The export stage: original and final network as ONNX files that say what PyTorch says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pipeline.data.load import load_splits
from pipeline.models.files import load_model
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.runtime.providers import CPU, find_provider
from stages.export.exporter import ExportReport, export_onnx
from stages.export.metadata import class_metadata
from stages.export.parity import ParityReport, check_parity
from stages.export.torch_exporters import DYNAMO, TORCHSCRIPT

_FILES = {"base": ("base_model", "base.onnx"), "final": ("final_model", "model.onnx")}
_DRAW = 20  # a seed of its own: search and statistics have drawn from the same split


class _Images(NamedTuple):
    """Parity images (N, C, H, W) and their classes (N,), and what the files say of their input."""

    x: torch.Tensor
    y: torch.Tensor
    metadata: dict[str, str]


def run(ctx: StageContext) -> dict[str, Any]:
    """Export both networks, and compare each file with PyTorch on images of the search split.

    Reads both models and the data card; writes `base.onnx` (the original), `model.onnx` (the
    final network) and `parity.json`, which holds the sha256 of both and every difference. A file
    out of tolerance is not committed: the folder stays as it was.

    Returns:
        of the final file: agreement, largest difference, bytes, opset and exporter.
    Raises:
        Refused: a network cannot be exported, or parity is out of tolerance.
        ArtifactError: the checker or onnxruntime refuses a file, or dies of it.
        EnvironmentProblem: the benchmark's provider is absent, or drops the file.
        Interrupted: a stop was asked for.
    """
    images = _images(ctx)
    document: dict[str, Any] = {"images": len(images.y)}
    document["label"] = images.metadata["data"]
    for at, (role, (kind, name)) in enumerate(_FILES.items()):
        if ctx.stopping():
            raise ctx.interrupted()
        ctx.progress(at, len(_FILES), file=name)
        folder = ctx.input(kind)
        model = load_model(folder)
        metadata = {
            **images.metadata,
            "run": ctx.run_name,
            "role": role,
            "weights_sha256": sha256_file(folder / "model.safetensors"),
            "data_sha256": getattr(ctx.data_card, "sha256", "") or "",
        }
        report, parity = _export(ctx, model, images, ctx.out / name, metadata)
        document[role] = {"export": {**report.to_dict(), "path": name}, **parity.to_dict()}
    ctx.progress(len(_FILES), len(_FILES))
    ctx.write("parity", document)
    final = document["final"]
    return {
        "top1_agreement": final["top1_agreement"],
        "max_abs": final["max_abs"],
        "bytes": final["export"]["bytes"],
        "opset": final["export"]["opset"],
        "exporter": final["export"]["exporter"],
    }


def _images(ctx: StageContext) -> _Images:
    search = load_splits(ctx.config.data, seed=ctx.seed).search
    x, y = search.take(ctx.config.export.images, seed=_DRAW)
    metadata = class_metadata(
        list(search.classes), list(search.mean), list(search.std), list(search.image_shape)
    )
    label = getattr(ctx.data_card, "label", "") or ""
    return _Images(x.contiguous(), y, {**metadata, "data": label})


def _export(
    ctx: StageContext, model: nn.Module, images: _Images, path: Path, metadata: dict[str, str]
) -> tuple[ExportReport, ParityReport]:
    """The first exporter whose file keeps the tolerances; the last one's failure is raised."""
    settings = ctx.config.export
    auto = settings.exporter == "auto"
    names = [DYNAMO, TORCHSCRIPT] if auto else [settings.exporter]
    missed = ""
    for name in names:
        only = None if auto and name == DYNAMO else name  # None: both, should the first not do it
        report = export_onnx(  # two images: torch.export specialises on a batch of 1
            model, images.x[:2], path, metadata=metadata, opset=settings.opset, exporter=only
        )
        report = replace(report, fallback=missed or report.fallback)
        parity = _parity(ctx, model, path, images)
        if report.fallback and not missed:
            written = f"{path.name} was written by the {report.exporter} exporter"
            ctx.warn(f"{written}, because {report.fallback}")
        if report.denormals_flushed:
            ctx.note(f"{path.name}: {report.denormals_flushed} denormal weights set to zero")
        if parity.passed:
            break
        if name != names[-1] and report.exporter == DYNAMO:
            missed = f"{name}: parity missed: {parity.problems[0]}"
            ctx.warn(f"{path.name}: {parity.problems[0]}; trying the {names[-1]} exporter")
    return report, parity.require()


def _parity(ctx: StageContext, model: nn.Module, path: Path, images: _Images) -> ParityReport:
    """On the CPU, and on the provider that the benchmark will time."""
    settings, benchmark = ctx.config.export, ctx.config.benchmark
    return check_parity(
        model,
        path,
        images.x,
        images.y,
        providers=tuple(dict.fromkeys((CPU, find_provider(benchmark.provider).name))),
        min_top1_agreement=settings.min_top1_agreement,
        max_accuracy_drop=settings.max_accuracy_drop,
        allow_fallback=benchmark.allow_fallback,
    )

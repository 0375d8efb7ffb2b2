"""The export stage: base and final network as ONNX files that say what PyTorch says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pipeline.data import load_splits
from pipeline.models import load_model
from pipeline.run.stage import Stage, StageContext
from pipeline.run.store import sha256_file, write_json
from pipeline.runtime import CPU, find_provider
from stages.export.exporter import DYNAMO, TORCHSCRIPT, ExportReport, class_metadata, export_onnx
from stages.export.parity import ParityReport, check_parity

_FILES = {"base": ("base_model", "base.onnx"), "final": ("final_model", "model.onnx")}
_DRAW = 20  # seed of the parity images' draw, apart from every other draw of a run


class _Images(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor
    metadata: dict[str, str]


class ExportStage(Stage):
    """A file out of tolerance is not committed: the stage fails and the folder stays as it was."""

    name = "export"
    title = "write ONNX and prove parity with PyTorch"
    sections = ("export",)
    reads = ("base_model", "final_model", "data")
    uses_data = True

    def depends(self, config: Any) -> dict[str, Any]:
        """Parity is checked on the benchmark's provider too."""
        return {**super().depends(config), "provider": config.benchmark.provider}

    def run(self, ctx: StageContext) -> dict[str, Any]:
        images = _images(ctx)
        document: dict[str, Any] = {"kind": "parity", "schema_version": 1, "images": len(images.y)}
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
        write_json(ctx.out / "parity.json", document)
        final = document["final"]
        return {
            "top1_agreement": final["top1_agreement"],
            "max_abs": final["max_abs"],
            "bytes": final["export"]["bytes"],
            "opset": final["export"]["opset"],
            "exporter": final["export"]["exporter"],
        }


def _images(ctx: StageContext) -> _Images:
    """Parity images of the search split, and what the files should say about their input."""
    search = load_splits(ctx.config.data, seed=ctx.seed).search
    x, y = search.take(ctx.config.export.images, seed=_DRAW)
    metadata = class_metadata(
        list(search.classes), list(search.mean), list(search.std), list(search.image_shape)
    )
    return _Images(
        x.contiguous(), y, {**metadata, "data": getattr(ctx.data_card, "label", "") or ""}
    )


def _export(
    ctx: StageContext, model: nn.Module, images: _Images, path: Path, metadata: dict[str, str]
) -> tuple[ExportReport, ParityReport]:
    """The first exporter whose file keeps the tolerances; the last one's failure is raised."""
    settings = ctx.config.export
    names = [DYNAMO, TORCHSCRIPT] if settings.exporter == "auto" else [settings.exporter]
    provider = find_provider(ctx.config.benchmark.provider).name
    missed = ""
    for name in names:
        only = None if name == DYNAMO and settings.exporter == "auto" else name
        report = export_onnx(
            model, images.x[:2], path, metadata=metadata, opset=settings.opset, exporter=only
        )
        report = replace(report, fallback=missed or report.fallback)
        parity = check_parity(
            model,
            path,
            images.x,
            images.y,
            providers=tuple(dict.fromkeys((CPU, provider))),
            min_top1_agreement=settings.min_top1_agreement,
            max_accuracy_drop=settings.max_accuracy_drop,
            allow_fallback=ctx.config.benchmark.allow_fallback,
        )
        if report.fallback and not missed:
            ctx.warn(
                f"{path.name} was written by the {report.exporter} exporter, because {report.fallback}"
            )
        if report.denormals_flushed:
            ctx.note(f"{path.name}: {report.denormals_flushed} denormal weights set to zero")
        if parity.passed:
            break
        if name != names[-1] and report.exporter == DYNAMO:
            missed = f"{name}: parity missed: {parity.problems[0]}"
            ctx.warn(f"{path.name}: {parity.problems[0]}; trying the {names[-1]} exporter")
    return report, parity.require()


STAGE = ExportStage

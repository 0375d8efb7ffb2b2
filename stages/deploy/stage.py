"""The deploy stage: the chosen network in a folder that can be handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from pipeline.data.card import DataCard
from pipeline.run.manifest import versions
from pipeline.run.stage import StageContext
from pipeline.run.store import make_folder, write_bytes
from stages.deploy.deployment import Deployment, Files
from stages.deploy.formats import FORMATS
from stages.deploy.networks import named, notes, taking_pixels
from stages.deploy.parity import TOLERANCES, check

_KINDS = {"fp32": "onnx", "int8": "onnx_int8", "fp16": "onnx_fp16"}


def run(ctx: StageContext) -> dict[str, Any]:
    """Write every format of the network that quantize chose.

    Reads the ONNX files, what quantize chose, what the benchmark measured, and the data card; no
    image. The network that takes pixels is compared with the chosen one on made-up pictures.

    Returns:
        what was chosen, how many files there are and how large they are together.
    Raises:
        Refused: a network of the folder answers otherwise than the one that was measured.
        ArtifactError: an ONNX file cannot be run.
    """
    made = _deployment(ctx)
    found: Files = {}
    for write in FORMATS.values():
        found |= write(made)
    for name, data in found.items():
        _make_folders(ctx.out, (ctx.out / name).parent)
        write_bytes(ctx.out / name, data)
    size = sum(len(data) for data in found.values())
    return {"precision": made.chosen, "files": len(found), "bytes": size}


def _deployment(ctx: StageContext) -> Deployment:
    quantized, settings = ctx.read("quantization"), ctx.config.deploy.model_dump(mode="json")
    paths = {precision: ctx.optional(kind) for precision, kind in _KINDS.items()}
    chosen = quantized["chosen"]
    card = DataCard.from_dict(_body(ctx))
    spec = card.specification()
    metadata = notes(card.classes, spec, settings["license"], versions().get("rlp-cnn", ""))
    networks = {
        precision: named(onnx.load_model_from_string(path.read_bytes()), metadata)
        for precision, path in paths.items()
        if path is not None
    }
    uint8 = taking_pixels(networks[chosen], spec)
    measured = paths[chosen]
    assert measured is not None
    return Deployment(
        run=ctx.run_name,
        networks=networks,
        chosen=chosen,
        reason=quantized["reason"],
        uint8=uint8,
        classes=card.classes,
        preprocessing=spec,
        card=card.to_dict(),
        benchmark=ctx.read("benchmark"),
        settings=settings,
        versions=versions(),
        difference=check(measured, networks[chosen], uint8, spec, TOLERANCES[chosen]),
    )


def _body(ctx: StageContext) -> dict[str, Any]:
    found = ctx.read("data")
    return {key: value for key, value in found.items() if key not in ("kind", "schema_version")}


def _make_folders(top: Path, folder: Path) -> None:
    """Every folder below `top` that leads to this one."""
    for parent in reversed([folder, *folder.parents]):
        if parent.is_relative_to(top):
            make_folder(parent)

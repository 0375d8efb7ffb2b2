"""A deploy folder made by the stage itself, from a network that needs no training: it names the
brightest of four quadrants.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.config.load import build_config
from pipeline.data import DataCard
from pipeline.preprocessing import Preprocessing
from pipeline.run.artifacts import KINDS, document
from pipeline.run.documents import Document
from pipeline.run.manifest import Dependencies, write_manifest
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.runtime.quantizer import Quantizer
from stages.deploy.stage import run

CLASSES = ("top left", "top right", "bottom left", "bottom/[/a] right é")
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
SIDE = 16
READS = ("data", "onnx", "onnx_int8", "onnx_fp16", "quantization", "benchmark")


def quadrants(path: Path, gain: float = 1.0, channels: int = 3) -> Path:
    """Logits are the mean of each quadrant, over the channels, times `gain`."""
    half = SIDE // 2
    weight = np.full((1, channels, half, half), gain / (channels * half * half), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "conv.weight"], ["means"], strides=[half, half]),
            helper.make_node("Flatten", ["means"], ["scores"]),
        ],
        "quadrants",
        [
            helper.make_tensor_value_info(
                "input", onnx.TensorProto.FLOAT, ["batch", channels, SIDE, SIDE]
            )
        ],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(proto, {"weights_sha256": "0" * 64})
    path.write_bytes(proto.SerializeToString())
    return path


def specification(resize: str = "crop", channels: int = 3) -> Preprocessing:
    return Preprocessing(SIDE, SIDE, channels, MEAN[:channels], STD[:channels], resize)


def context(
    home: Path, *, int8: bool = False, fp16: bool = False, resize: str = "crop", **deploy: Any
) -> StageContext:
    """What the stage reads, below `home`; with `int8` or `fp16` there is another network, and
    chosen.
    """
    for name in ("made", "deploy", "work"):
        (home / name).mkdir(parents=True)
    quadrants(home / "made" / "model.onnx", gain=4.0)
    if int8:
        quadrants(home / "made" / "model_int8.onnx", gain=8.0)
    if fp16:
        with Quantizer() as quantizer:
            quantizer.hold(home / "made" / "model.onnx")
            (home / "made" / "model_fp16.onnx").write_bytes(quantizer.halve()[0])
    chosen = "int8" if int8 else "fp16" if fp16 else "fp32"
    quantization = _quantization(chosen)
    bodies = {"data": _card(resize), "quantization": quantization, "benchmark": _benchmark()}
    inputs = {}
    for name in READS:
        kind = KINDS[name]
        path = home / "made" / kind.files[0]
        if isinstance(kind, Document):
            document(name).write(path, bodies[name])
        inputs[name] = (path.parent, {path.name: sha256_file(path)} if path.exists() else {})
    config = build_config({"deploy": deploy})
    return StageContext(config, home / "deploy", home / "work", inputs, run_name="quadrants")


def deployed(home: Path, **choice: Any) -> Path:
    """The finished folder, with its manifest."""
    ctx = context(home, **choice)
    summary = run(ctx)
    needs = Dependencies("deploy", 1, 0, {}, {}, {}, "")
    write_manifest(ctx.out, needs, summary, "2026-01-01T00:00:00+00:00", 0.5)
    return ctx.out


def picture(corner: int, width: int = 40, height: int = 30) -> np.ndarray:
    """(height, width, 3) uint8 whose quadrant number `corner` is bright."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    rows = slice(0, height // 2) if corner < 2 else slice(height // 2, height)
    columns = slice(0, width // 2) if corner % 2 == 0 else slice(width // 2, width)
    pixels[rows, columns] = 220
    return pixels


def _card(resize: str) -> dict[str, Any]:
    shape, spec = (3, SIDE, SIDE), specification(resize)
    counts = {"train": (9, 9, 9, 9), "test": (2, 2, 2, 2)}
    card = DataCard("folders", "corners", CLASSES, shape, counts, MEAN, STD, "1" * 64)
    return {**card.to_dict(), "preprocessing": spec.to_dict()}


def _quantization(chosen: str) -> dict[str, Any]:
    reason = "quantize.mode is off" if chosen == "fp32" else "1.70 times as fast"
    return {"mode": "auto", "tried": [], "base": {}, "chosen": chosen, "reason": reason}


def _benchmark() -> dict[str, Any]:
    def side(name: str, ratio: float) -> dict[str, Any]:
        latency, bounds = {"p50": 2 / ratio, "p90": 3.0}, [ratio - 0.125, ratio + 0.125]
        measured = {"ratio": ratio, "ci95": bounds, "verdict": "faster", "latency_ms": latency}
        costs = {"accuracy": 0.9125, "macs": 7, "bytes": 1234}
        return {"name": name, "precision": "fp32", "chosen": name == "final", **costs, **measured}

    rows = [side("base", 1.0), side("final", 1.625)]
    setting = {"provider": "CPUExecutionProvider", "batch": 1, "threads": 2}
    data = {"label": "corners", "test_images": 8}
    found = {"settings": [setting], "data": data, "variants": rows, "machine": {"cpu": "Some CPU"}}
    return {**found, "base": rows[0], "final": rows[1], "remarks": []}

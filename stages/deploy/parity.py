"""The networks of a deploy folder against the file that was measured, through onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from pipeline.errors import Refused
from pipeline.preprocessing import Preprocessing
from pipeline.runtime.worker import Worker
from stages.deploy.predict import softmax

TOLERANCES = {"fp32": 1e-4, "int8": 1e-4, "fp16": 1e-2}
"""Largest difference of a probability, by precision: round-off of the same operators is far below,
and fp16 rounds an input to another of its numbers.
"""
_PICTURES = 16


def check(
    measured: Path,
    named: onnx.ModelProto,
    uint8: onnx.ModelProto,
    spec: Preprocessing,
    tolerance: float,
) -> float:
    """Run all three on the same made-up pictures.

    Args:
        measured: the ONNX file whose accuracy and latency are known.
        named: the same with other names, to be handed over.
        uint8: the same on pixels as they are.
        tolerance: largest difference of a probability.
    Returns:
        the largest difference of a probability.
    Raises:
        Refused: one of the two answers otherwise.
        ArtifactError: onnxruntime refuses a file.
    """
    pixels = pictures(spec)
    scale, shift = spec.scale_and_shift()
    x = np.ascontiguousarray((pixels * scale + shift).transpose(0, 3, 1, 2), np.float32)
    with Worker() as worker:
        wanted = softmax(_infer(worker, measured, x))
        found = {
            "model.onnx": softmax(_infer(worker, named.SerializeToString(), x)),
            "model_uint8.onnx": _infer(worker, uint8.SerializeToString(), pixels),
        }
    differences = {name: float(np.abs(given - wanted).max()) for name, given in found.items()}
    for name, difference in differences.items():
        if not difference <= tolerance:  # also when it is not a number
            what = f"{name} and {measured.name} differ by {difference:.2g} in a probability"
            raise Refused(f"{what}, more than {tolerance:g}")
    return max(differences.values())


def pictures(spec: Preprocessing) -> np.ndarray:
    """(N, H, W, C) uint8: noise at several contrasts, and flat colours, from black to white."""
    generator = np.random.default_rng(0)
    shape = (_PICTURES, spec.height, spec.width, spec.channels)
    noise = generator.integers(0, 256, shape)
    contrast = np.linspace(0, 1, _PICTURES).reshape(-1, 1, 1, 1)
    level = np.linspace(0, 255, _PICTURES).reshape(-1, 1, 1, 1)
    return (contrast * noise + (1 - contrast) * level).round().astype(np.uint8)


def _infer(worker: Worker, model: Path | bytes, x: np.ndarray) -> np.ndarray:
    worker.open(model, threads=1, label="" if isinstance(model, Path) else "a deploy network")
    return worker.infer(x)

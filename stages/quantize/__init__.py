"""INT8 and fp16 by onnxruntime's own tools; which, how, and whether at all, is measured."""

from __future__ import annotations

from stages.quantize.choice import Allowance
from stages.quantize.engine import quantize_onnx
from stages.quantize.half import HalfReport, half_onnx
from stages.quantize.images import ArrayImages
from stages.quantize.report import QuantizeReport
from stages.quantize.schemes import CALIBRATORS, OPERATORS, SCHEMES, Calibrator, Scheme
from stages.quantize.workbench import Workbench

__all__ = [
    "CALIBRATORS",
    "OPERATORS",
    "SCHEMES",
    "Allowance",
    "ArrayImages",
    "Calibrator",
    "HalfReport",
    "QuantizeReport",
    "Scheme",
    "Workbench",
    "half_onnx",
    "quantize_onnx",
]

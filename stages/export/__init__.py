"""Export to ONNX, parity with PyTorch, and candidate graphs sliced from an exported one."""

from __future__ import annotations

from stages.export.denormals import count_denormals, flush_denormals
from stages.export.exporter import ExportReport, check_file, export_onnx, export_proto
from stages.export.metadata import class_metadata
from stages.export.parity import ParityReport, ParityRow, check_parity
from stages.export.slicing import OnnxSlicer, slice_onnx

__all__ = [
    "ExportReport",
    "OnnxSlicer",
    "ParityReport",
    "ParityRow",
    "check_file",
    "check_parity",
    "class_metadata",
    "count_denormals",
    "export_onnx",
    "export_proto",
    "flush_denormals",
    "slice_onnx",
]

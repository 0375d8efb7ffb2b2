"""Execution providers: names people type, onnxruntime's own, and the package that brings each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engines import TENSORRT
from pipeline.errors import EnvironmentProblem, UsageError

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name, short: what onnxruntime and what people call it.
        package: what to install for it.
        device: what IO binding calls the memory it works on; None where it is the host's.
    """

    name: str
    short: str
    package: str
    device: str | None = None


PROVIDERS = (
    Provider(CPU, "cpu", "onnxruntime"),
    Provider("CUDAExecutionProvider", "cuda", "onnxruntime-gpu", "cuda"),
    Provider(TENSORRT, "tensorrt", "onnxruntime-gpu", "cuda"),
    Provider("OpenVINOExecutionProvider", "openvino", "onnxruntime-openvino"),
    Provider("DmlExecutionProvider", "directml", "onnxruntime-directml", "dml"),
    Provider("CoreMLExecutionProvider", "coreml", "onnxruntime (its macOS wheel)"),
    Provider("ROCMExecutionProvider", "rocm", "onnxruntime-rocm", "rocm"),
    Provider("XnnpackExecutionProvider", "xnnpack", "onnxruntime built with XNNPACK"),
)


def find_provider(name: str) -> Provider:
    """The provider called `name`, short ("cuda") or long ("CUDAExecutionProvider"), in any case.

    Raises:
        UsageError: no onnxruntime has one of that name.
    """
    for provider in PROVIDERS:
        if name.lower() in (provider.short, provider.name.lower()):
            return provider
    known = ", ".join(provider.short for provider in PROVIDERS)
    raise UsageError(f"unknown execution provider {name!r}", hint=f"choose one of: {known}")


def missing_provider(name: str, available: Sequence[str]) -> EnvironmentProblem:
    """The error for a provider that this onnxruntime was built without."""
    provider = find_provider(name)
    package = provider.package
    hint = f"install {package} in place of onnxruntime"
    if " " not in package:
        # both install the same folder: whichever came last is the one that is imported
        hint = f"pip uninstall -y onnxruntime && pip install {package}"
    return EnvironmentProblem(
        f"this onnxruntime has no {provider.name}; it has {', '.join(available)}",
        hint=hint,
    )

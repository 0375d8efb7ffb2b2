"""Execution providers: the names people type, onnxruntime's own, and the package that brings
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import EnvironmentProblem, UsageError

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """`device` is what IO binding calls the memory it works on; None where host memory is used
    directly.
    """

    name: str
    short: str
    package: str
    extra: str = ""
    device: str | None = None


PROVIDERS = (
    Provider(CPU, "cpu", "onnxruntime"),
    Provider("CUDAExecutionProvider", "cuda", "onnxruntime-gpu", "gpu", "cuda"),
    Provider("TensorrtExecutionProvider", "tensorrt", "onnxruntime-gpu", "gpu", "cuda"),
    Provider("OpenVINOExecutionProvider", "openvino", "onnxruntime-openvino", "openvino"),
    Provider("DmlExecutionProvider", "directml", "onnxruntime-directml", "", "dml"),
    Provider("CoreMLExecutionProvider", "coreml", "onnxruntime (its macOS wheel)"),
    Provider("ROCMExecutionProvider", "rocm", "onnxruntime-rocm", "", "rocm"),
    Provider("XnnpackExecutionProvider", "xnnpack", "onnxruntime built with XNNPACK"),
)


def find_provider(name: str) -> Provider:
    """The provider called `name`, short ("cuda") or long ("CUDAExecutionProvider"), in any case.

    Raises UsageError for a name that no onnxruntime has.
    """
    for provider in PROVIDERS:
        if name.lower() in (provider.short, provider.name.lower()):
            return provider
    known = ", ".join(provider.short for provider in PROVIDERS)
    raise UsageError(f"unknown execution provider {name!r}", hint=f"choose one of: {known}")


def missing_provider(name: str, available: Sequence[str]) -> EnvironmentProblem:
    """The error for a provider that this onnxruntime was built without."""
    provider = find_provider(name)
    if provider.extra:
        hint = (
            f"pip install 'rlp-cnn[{provider.extra}]' brings {provider.package}; it replaces onnxruntime, so then: "
            f"pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps {provider.package}"
        )
    else:
        hint = f"install {provider.package} in place of onnxruntime"
    return EnvironmentProblem(
        f"this onnxruntime has no {provider.name}; it has {', '.join(available)}",
        hint=hint,
    )

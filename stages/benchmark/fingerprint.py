"""What the timings were taken on: processor, instruction sets, limits, versions, load."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from typing import Any

from pipeline.system import (
    allowed_cores,
    cpu_flags,
    cpu_name,
    cpu_quota,
    memory_bytes,
    package_versions,
    read_line,
    usable_cores,
)

# of the processor's instruction sets those that convolutions are written for
_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "asimd",
    "asimddp",
    "sve",
)
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnx", "numpy", "torch")
_STABLE = ("cpu", "flags", "cores", "quota", "system", "versions")


def fingerprint() -> dict[str, Any]:
    """JSON-able facts, None for what the system does not tell.

    `id` is a hash of those that do not change by the hour: timings with the same one compare.
    """
    facts: dict[str, Any] = {
        "cpu": cpu_name(),
        "flags": _flags(),
        "cores": len(allowed_cores()),
        "quota": cpu_quota(),
        "governor": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_khz": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
        "temperature_c": _temperature(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": package_versions(_PACKAGES) | _runtime(),
    }
    stable = json.dumps({key: facts[key] for key in _STABLE}, sort_keys=True)
    return {"id": hashlib.sha256(stable.encode()).hexdigest()[:16], **facts}


def resolve_threads(threads: int) -> int:
    """`threads`, or for 0 as many as there are usable cores."""
    return threads if threads > 0 else usable_cores()


def cores(threads: int) -> list[int]:
    """Cores to pin `threads` to; all of them when there are too few."""
    usable = allowed_cores()
    return usable[-threads:] if threads <= len(usable) else usable  # the first serve interrupts


def _flags() -> list[str]:
    present = cpu_flags()
    return [flag for flag in _FLAGS if flag in present]


def _temperature() -> float | None:
    text = read_line("/sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1000 if text and text.lstrip("-").isdigit() else None


def _runtime() -> dict[str, str]:
    """The onnxruntime that is imported, whichever of its packages brought it."""
    try:
        import onnxruntime
    except Exception:  # a broken installation; `rlp doctor` says so
        return {}
    return {"onnxruntime": onnxruntime.__version__}

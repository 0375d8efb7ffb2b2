"""What the timings were taken on: processor, instruction sets, limits, versions, load."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
    """JSON-able facts, None for what the system does not tell; `id` is of what does not change
    by the hour.
    """
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "flags": _flags(),
        "cores": len(allowed_cores()),
        "quota": cpu_quota(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_khz": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
        "temperature_c": _temperature(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))} | _runtime(),
    }
    stable = json.dumps({key: facts[key] for key in _STABLE}, sort_keys=True)
    return {"id": hashlib.sha256(stable.encode()).hexdigest()[:16], **facts}


def allowed_cores() -> list[int]:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """Cores' worth of time that the control group allows, None when unlimited or unknown."""
    text = _read("/sys/fs/cgroup/cpu.max")
    if text:
        limit, _, period = text.partition(" ")
        return None if limit == "max" else int(limit) / int(period or 100_000)
    quota, each = (
        _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    )
    if quota and each and int(quota) > 0:
        return int(quota) / int(each)
    return None


def resolve_threads(threads: int) -> int:
    """`threads`, or for 0 as many as there are usable cores: more than the quota only makes
    them wait.
    """
    if threads > 0:
        return threads
    usable, quota = len(allowed_cores()), cpu_quota()
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def cores(threads: int) -> list[int]:
    """Cores to pin `threads` to: the last ones, since the first serve interrupts; none when
    there are too few.
    """
    usable = allowed_cores()
    return usable[-threads:] if threads <= len(usable) else usable


def _cpu_name() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.lower().startswith(("model name", "hardware", "cpu model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _flags() -> list[str]:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            present = set(line.partition(":")[2].split())
            return [flag for flag in _FLAGS if flag in present]
    return []


def _temperature() -> float | None:
    text = _read("/sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1000 if text and text.lstrip("-").isdigit() else None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _runtime() -> dict[str, str]:
    """The onnxruntime that is imported, whichever of its packages brought it."""
    try:
        import onnxruntime
    except Exception:  # a broken installation; `rlp doctor` says so
        return {}
    return {"onnxruntime": onnxruntime.__version__}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError):
        return None


def _lines(path: str) -> Iterable[str]:
    return (_read(path) or "").splitlines()

"""`rlp doctor`: what this machine can do, and what would stop a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import typer

from pipeline import console
from pipeline.cli.common import attach, command


def register(app: typer.Typer) -> None:
    command(app, "doctor", keys=("checks", "versions", "device", "cores", "memory_bytes", "providers"))(doctor)


def doctor() -> dict[str, Any]:
    """Check packages, processor, memory, disk and execution providers; exit 4 when a run could not work."""
    import psutil

    from pipeline.errors import EnvironmentProblem
    from pipeline.manifest import device, versions

    checks = [_torch(), _torchvision(), _onnxruntime(), _disk()]
    doc: dict[str, Any] = {
        "checks": checks,
        "versions": versions(),
        "device": device(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "providers": _providers(),
    }
    console.say(f"{doc['device']}, {doc['cores']} cores, {console.size(doc['memory_bytes'])} memory")
    console.say(", ".join(f"{name} {version}" for name, version in doc["versions"].items()))
    console.table(
        ("", "check", "what was found"), [("ok" if c["ok"] else "BAD", c["check"], c["found"]) for c in checks]
    )
    bad = [c for c in checks if not c["ok"]]
    if bad:
        told = [f"{c['check']}: {c['found']}" for c in bad]
        raise attach(EnvironmentProblem(told[0], hint=bad[0]["hint"], details=told[1:]), doc)
    return doc


def _check(name: str, ok: bool, found: str, hint: str = "") -> dict[str, Any]:
    return {"check": name, "ok": ok, "found": found, "hint": hint}


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:
        return _check("torch", False, str(error), "pip install 'torch>=2.10'")
    where = f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU"
    return _check("torch", True, f"{torch.__version__} on {where}")


def _torchvision() -> dict[str, Any]:
    from pipeline.models import torchvision_shim

    try:
        module = torchvision_shim.import_torchvision()
    except Exception as error:
        return _check("torchvision", False, str(error), "install the torchvision that matches your torch")
    bridged = " (built for another torch: its two detection operators were declared, classifiers work)"
    return _check("torchvision", True, module.__version__ + (bridged if torchvision_shim._library else ""))


def _providers() -> list[str]:
    try:
        import onnxruntime
    except Exception:
        return []
    return list(onnxruntime.get_available_providers())


def _onnxruntime() -> dict[str, Any]:
    found = _providers()
    return _check(
        "onnxruntime", "CPUExecutionProvider" in found, ", ".join(found) or "missing", "pip install onnxruntime"
    )


def _disk() -> dict[str, Any]:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    found = f"{console.size(free)} free in {folder}" + ("" if writable else ", not writable")
    return _check("disk", writable and free > 500_000_000, found, "free some space, or pass --run-dir DIR elsewhere")

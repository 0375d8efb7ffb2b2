"""`rlp doctor`: what this machine can do, and what would stop a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import attach, command
from pipeline.words import count_of


def register(app: typer.Typer) -> None:
    keys = ("checks", "versions", "device", "cores", "memory_bytes", "providers", "int8")
    command(app, "doctor", keys=(*keys, "alignment"))(doctor)


def doctor(
    target: Annotated[
        bool,
        typer.Option(
            "--target",
            help="Time convolutions by width: which channel multiple pays here. About 5 s, kept.",
        ),
    ] = False,
    provider: Annotated[
        str, typer.Option("--provider", help="With --target: cpu, cuda, openvino, …")
    ] = "cpu",
    threads: Annotated[
        int,
        typer.Option("--threads", min=0, help="With --target: intra-op threads, 0 for all cores."),
    ] = 1,
    precision: Annotated[
        str, typer.Option("--precision", help="With --target: fp32, or int8 for quantised layers.")
    ] = "fp32",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="With --target: time again what is known already.")
    ] = False,
) -> dict[str, Any]:
    """Check packages, processor, memory, disk and execution providers; exit 4 when a run could
    not work.
    """
    from pipeline.errors import EnvironmentProblem
    from pipeline.run.manifest import device, versions
    from pipeline.system import allowed_cores, int8_features, memory_bytes

    checks = [_torch(), _torchvision(), _onnxruntime(), _int8(), _disk()]
    doc: dict[str, Any] = {
        "checks": checks,
        "versions": versions(),
        "device": device(),
        "cores": len(allowed_cores()),
        "memory_bytes": memory_bytes(),
        "providers": _providers(),
        "int8": int8_features(),
        "alignment": None,
    }
    console.say(
        f"{doc['device']}, {doc['cores']} cores, {console.size(doc['memory_bytes'] or 0)} memory"
    )
    console.say(", ".join(f"{name} {version}" for name, version in doc["versions"].items()))
    console.table(
        ("", "check", "what was found"),
        [("ok" if c["ok"] else "BAD", c["check"], c["found"]) for c in checks],
    )
    bad = [c for c in checks if not c["ok"]]
    if bad:
        problems = [f"{c['check']}: {c['found']}" for c in bad]
        raise attach(
            EnvironmentProblem(problems[0], hint=bad[0]["hint"], details=problems[1:]), doc
        )
    if target:
        doc["alignment"] = _alignment(provider, threads, precision, refresh)
    return doc


def _alignment(provider: str, threads: int, precision: str, refresh: bool) -> dict[str, Any]:
    """The sweep as a table: microseconds of one layer by width, what a multiple costs, and the
    one that pays.
    """
    from pipeline.errors import Set, UsageError
    from stages.benchmark.alignment import PRECISIONS
    from stages.benchmark.alignment_cache import cached_alignment

    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", hint=f"one of {', '.join(PRECISIONS)}")
    watcher = console.RunWatcher()

    def before() -> None:
        console.note("timing 90 convolutions by width: about five seconds on a quiet machine")
        watcher.watch("target")

    try:
        found, known = cached_alignment(
            precision=precision,
            provider=provider,
            threads=threads,
            refresh=refresh,
            before=before,
            progress=watcher.progress,
        )
    finally:
        watcher.close()
    kinds = list(dict.fromkeys(row.kind for row in found.rows))
    times = {(row.kind, row.channels): row.us for row in found.rows}
    widths = sorted({row.channels for row in found.rows})
    table = [(width, *(f"{times[kind, width]:.1f}" for kind in kinds)) for width in widths]
    provider_name = found.provider.removesuffix("ExecutionProvider")
    threads_text = count_of(found.threads, "thread")
    where = f"{precision}, {provider_name}, {threads_text}, machine {found.machine}"
    console.table(("channels", *(f"{kind} µs" for kind in kinds)), table, title=where)
    costs = [(multiple, f"{cost:.2f}×") for multiple, cost in found.cost.items()]
    console.table(
        ("multiple of", "time per channel against the best"), costs, right=("multiple of",)
    )
    console.say(
        f"channel counts should be multiples of {found.multiple} here in {precision}: "
        f"{Set('search.align', found.multiple)}"
    )
    if known:
        console.note("known from before; --refresh times it again")
    return {**found.to_dict(), "known": known}


def _check(name: str, ok: bool, found: str, hint: str = "") -> dict[str, Any]:
    return {"check": name, "ok": ok, "found": found, "hint": hint}


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken wheel raises whatever its loader does
        return _check("torch", False, str(error), "pip install 'torch>=2.10'")
    where = (
        f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
        if torch.cuda.is_available()
        else "CPU"
    )
    return _check("torch", True, f"{torch.__version__} on {where}")


def _torchvision() -> dict[str, Any]:
    from pipeline import torchvision_import

    try:
        module = torchvision_import.import_torchvision()
    except Exception as error:
        return _check(
            "torchvision", False, str(error), "install the torchvision that matches your torch"
        )
    bridged = (
        " (built for another torch: its two detection operators were declared, classifiers work)"
    )
    return _check(
        "torchvision", True, module.__version__ + (bridged if torchvision_import._library else "")
    )


def _providers() -> list[str]:
    try:
        import onnxruntime
    except Exception:
        return []
    return list(onnxruntime.get_available_providers())


def _onnxruntime() -> dict[str, Any]:
    found = _providers()
    return _check(
        "onnxruntime",
        "CPUExecutionProvider" in found,
        ", ".join(found) or "missing",
        "pip install onnxruntime",
    )


def _int8() -> dict[str, Any]:
    """What 8-bit arithmetic has to work with; nothing here stops a run."""
    from pipeline.system import has_dot_product, int8_features

    found = int8_features()
    if not found:
        return _check("int8", True, "instruction sets not known; rlp quantize measures")
    without = "" if has_dot_product(found) else "; no VNNI, AMX or dot product: INT8 gains less"
    return _check("int8", True, ", ".join(found) + without)


def _disk() -> dict[str, Any]:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    found = f"{console.size(free)} free in {folder}" + ("" if writable else ", not writable")
    return _check(
        "disk",
        writable and free > 500_000_000,
        found,
        "free some space, or pass --run-dir DIR elsewhere",
    )

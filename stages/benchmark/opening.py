"""A file opened in a child as it is timed: threads, provider, batch fixed or open, and its feed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.runtime.feed import Given
from pipeline.runtime.providers import find_provider
from stages.benchmark.fingerprint import cores, resolve_threads
from stages.benchmark.setting import Setting


def open_at(
    worker: Any, file: Path | bytes, setting: Setting, shape: Given = None, **options: Any
) -> dict[str, Any]:
    """Open a file at a setting, pinned to its cores, and feed it.

    Args:
        worker: a `Worker`.
        shape: sizes after the batch, for files that leave them open.
        options: further ones of `Worker.open`.
    Returns:
        what `Worker.open` does; `cores` that the child is pinned to; `sizes` of the feed by input.
    Raises:
        UsageError: a size stays open, or the file takes another number of images a call.
        ArtifactError: the file cannot be opened, or kills the runtime.
        EnvironmentProblem: this onnxruntime lacks the provider, or ran out of memory.
    """
    provider, threads = find_provider(setting.provider), resolve_threads(setting.threads)
    pinned = worker.pin(cores(threads))  # before `open`: its threads inherit it
    options |= {"provider": provider.name, "threads": threads}
    if setting.static_batch:  # by its name, which only an open file tells
        opened = worker.open(file, **{**options, "profile": False})
        options["static_dims"] = _batch_fixed(worker, opened, setting)
    opened = worker.open(file, **options)
    sizes = worker.feed(batch=setting.batch, shape=shape, device=provider.device)
    return {**opened, "cores": pinned, "sizes": sizes}


def _batch_fixed(worker: Any, opened: dict[str, Any], setting: Setting) -> dict[str, int]:
    """The batch by the name that the file gives it; nothing where the file fixes it itself."""
    first = next(iter(opened["inputs"][0]["shape"]), 1) if opened["inputs"] else 1
    if first is None:
        raise UsageError(
            f"{worker.subject}: its batch is open and has no name by which to fix it",
            hint="leave --static out",
        )
    return {first: setting.batch} if isinstance(first, str) else {}

"""Where TensorRT keeps what it builds, which takes it seconds to minutes a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

TENSORRT = "TensorrtExecutionProvider"
_ENGINES: ContextVar[Path | None] = ContextVar("engines", default=None)


@contextmanager
def engines_kept_in(folder: Path) -> Iterator[None]:
    """TensorRT's engines of files are kept below this folder and built once, inside the block."""
    token = _ENGINES.set(folder.absolute())
    try:
        yield
    finally:
        _ENGINES.reset(token)


def options_for(provider: str, model: Path | bytes) -> dict[str, str]:
    """What a session is opened with where a call says nothing else.

    Graphs in memory are built anew: TensorRT calls an engine after the names in the graph, and
    under the same names candidates have other sizes and weights. Files have a folder by content and
    by where they lie, for their weights may lie beside them.
    """
    kept = _ENGINES.get()
    if provider != TENSORRT or kept is None or isinstance(model, bytes):
        return {}
    with model.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(str(model.absolute().parent).encode())
    place = str(kept / digest.hexdigest()[:16])
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": place,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": place,
    }

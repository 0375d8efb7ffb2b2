"""Task accuracy of an ONNX file, through onnxruntime, in a child process."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker


class _Batches(Protocol):
    def batches(self, batch_size: int) -> Iterable[tuple[Any, Any]]: ...


def onnx_accuracy(
    path: Path,
    images: _Batches,
    *,
    provider: str = CPU,
    batch_size: int = 256,
    worker: Worker | None = None,
) -> float:
    """Share of `images` (pipeline.data.Images) that the file names correctly, as a fraction.

    Args:
        worker: the child to open it in, which is kept; None: one of its own.
    Raises:
        ArtifactError: the file cannot be run, or takes no images of this shape.
        EnvironmentProblem: this onnxruntime lacks the provider.
    """
    right = total = 0
    with nullcontext(worker) if worker else Worker() as worker:
        worker.open(path, provider=find_provider(provider).name, threads=0)  # not timed: all cores
        for x, y in images.batches(batch_size):
            named = worker.infer(np.asarray(x)).argmax(axis=1)
            right += int((named == np.asarray(y)).sum())
            total += len(y)
    return right / total

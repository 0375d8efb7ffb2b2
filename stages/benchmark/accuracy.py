"""Task accuracy of an ONNX file, through onnxruntime, in a child process."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.paired import paired_change
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker


class _Batches(Protocol):
    def batches(self, batch_size: int) -> Iterable[tuple[Any, Any]]: ...


def onnx_correct(
    path: Path,
    images: _Batches,
    *,
    provider: str = CPU,
    batch_size: int = 256,
    worker: Worker | None = None,
) -> np.ndarray:
    """Which of `images` (pipeline.data.Images) the file names correctly: bool, in their order.

    Args:
        worker: the child to open it in, which is kept; None: one of its own.
    Raises:
        ArtifactError: the file cannot be run, or takes no images of this shape.
        EnvironmentProblem: this onnxruntime lacks the provider.
    """
    correct = []
    with nullcontext(worker) if worker else Worker() as worker:
        worker.open(path, provider=find_provider(provider).name, threads=0)  # not timed: all cores
        for x, y in images.batches(batch_size):
            named = worker.infer(np.asarray(x)).argmax(axis=1)
            correct.append(named == np.asarray(y))
    return np.concatenate(correct)


def onnx_accuracy(path: Path, images: _Batches, **options: Any) -> float:
    """The share of them, as a fraction; options and errors as of `onnx_correct`."""
    return float(onnx_correct(path, images, **options).mean())


def accuracy_change(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Two files by the same images (`onnx_correct`), as `paired_change` tells it."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return paired_change(len(before), gained, lost)

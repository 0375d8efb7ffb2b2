"""What an ONNX file names on labelled images, through onnxruntime, in a child process."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.paired import paired_change
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker


class _Batches(Protocol):
    def batches(self, batch_size: int) -> Iterable[tuple[Any, Any]]: ...


@dataclass(frozen=True)
class Named:
    """What a file said of the images, in their order.

    Attributes:
        labels: (N,) the true class of each.
        classes: (N,) the one that the file names.
    """

    labels: np.ndarray
    classes: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return self.labels == self.classes

    @property
    def accuracy(self) -> float:
        """The share of images named correctly, as a fraction."""
        return float(self.correct.mean())


def onnx_named(
    path: Path,
    images: _Batches,
    *,
    provider: str = CPU,
    batch_size: int = 256,
    worker: Worker | None = None,
) -> Named:
    """The class that the file names for each of `images` (pipeline.data.Images).

    Args:
        worker: the child to open it in, which is kept; None: one of its own.
    Raises:
        ArtifactError: the file cannot be run, or takes no images of this shape.
        EnvironmentProblem: this onnxruntime lacks the provider.
    """
    labels, classes = [], []
    with nullcontext(worker) if worker else Worker() as worker:
        worker.open(path, provider=find_provider(provider).name, threads=0)  # not timed: all cores
        for x, y in images.batches(batch_size):
            classes.append(worker.infer(np.asarray(x)).argmax(axis=1))
            labels.append(np.asarray(y))
    return Named(np.concatenate(labels), np.concatenate(classes))


def onnx_accuracy(path: Path, images: _Batches, **options: Any) -> float:
    """The share of them named correctly; options and errors as of `onnx_named`."""
    return onnx_named(path, images, **options).accuracy


def accuracy_change(before: Named, after: Named) -> dict[str, Any]:
    """Two files by the same images, as `paired_change` tells it."""
    was, now = before.correct, after.correct
    return paired_change(len(was), int((now & ~was).sum()), int((was & ~now).sum()))

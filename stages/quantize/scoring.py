"""INT8 against fp32 on the same images: accuracy lost, agreement, error of the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.paired import paired_change
from pipeline.runtime.providers import CPU
from pipeline.runtime.worker import Worker
from stages.quantize.images import ArrayImages, Batches, first
from stages.quantize.report import Score

_BATCH = 64
_SCREEN = 256  # images on which candidates are told apart: the error of outputs varies little
_SCREEN_BYTES = 128 << 20
_LARGEST = float(np.finfo(np.float64).max)  # what NaN and infinity count as, in plain JSON


class Scorer:
    """The fp32 network's outputs on the images of a choice, and INT8 graphs compared with them.

    Args:
        path: the fp32 file.
        images: in an order whose beginning is a fair sample.
        count: most images used.
        fixed: the batch that the file has in its graph; None where it is free.
    Raises:
        ArtifactError: the file cannot be run on these images.
    """

    def __init__(
        self,
        path: Path | bytes,
        images: Batches,
        count: int,
        *,
        provider: str = CPU,
        fixed: int | None = None,
    ) -> None:
        self._images, self._count, self._provider = images, count, provider
        self._batch, self._fixed = fixed or _BATCH, fixed
        self._worker: Worker | None = None
        kept: list[np.ndarray] = []
        labels, outputs = [], []
        self._open(path)
        for x, y in first(images, count, self._batch):
            outputs.append(self._infer(x))
            labels.append(y)
            if len(kept) * self._batch < _SCREEN and len(kept) * x.nbytes < _SCREEN_BYTES:
                kept.append(x)
        if not outputs:
            raise ArtifactError("there are no images to choose on", hint="give some")
        self.outputs = np.concatenate(outputs)
        known = [y for y in labels if y is not None]
        self.labels = np.concatenate(known) if len(known) == len(labels) else None
        self._sample = ArrayImages(np.concatenate(kept))

    def screen(self, model: Path | bytes, most: int | None = None) -> Score:
        """On the few images that are kept in memory, or on the first `most` of them."""
        return self._score(
            model, self._sample, min(most or len(self._sample.x), len(self._sample.x))
        )

    def score(self, model: Path | bytes) -> Score:
        """On all images."""
        return self._score(model, self._images, self._count)

    def _score(self, model: Path | bytes, images: Batches, count: int) -> Score:
        self._open(model)
        batches = first(images, count, self._batch)
        found = np.concatenate([self._infer(x) for x, _ in batches])
        expected = self.outputs[: len(found)]
        labels = None if self.labels is None else self.labels[: len(found)]
        return compare(expected, found, labels)

    def close(self) -> None:
        """End the child."""
        if self._worker is not None:
            self._worker.close()

    def _open(self, model: Path | bytes) -> None:
        if self._worker is None or not self._worker.alive:  # a graph may have killed it
            self._worker = Worker()
        self._worker.open(model, provider=self._provider, threads=0)  # not timed: all cores

    def _infer(self, x: np.ndarray) -> np.ndarray:
        assert self._worker is not None
        missing = (self._fixed or len(x)) - len(x)
        full = np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x
        return self._worker.infer(full)[: len(x)].reshape(len(x), -1)


def compare(expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> Score:
    """One score from the outputs of fp32 and of INT8 (N, classes) and the classes (N,).

    Without `labels` the drop is the share of images that the two name differently, which is the
    most that the accuracy can have lost.
    """
    named, before = found.argmax(axis=1), expected.argmax(axis=1)
    gained, lost = np.zeros(len(found), bool), before != named
    accuracy: tuple[float | None, float | None] = (None, None)
    if labels is not None:
        right, was_right = named == labels, before == labels
        gained, lost = right & ~was_right, was_right & ~right
        accuracy = (float(right.mean()), float(was_right.mean()))
    change = paired_change(len(found), int(gained.sum()), int(lost.sum()))
    low, high = change["ci95"]
    return Score(
        images=len(found),
        accuracy=accuracy[0],
        fp32_accuracy=accuracy[1],
        drop=0.0 - change["points"],  # 0, not -0
        drop_ci95=(-high, -low),
        top1_agreement=float((named == before).mean()),
        output_error=_relative_error(expected.astype(np.float64), found.astype(np.float64)),
    )


def _relative_error(expected: np.ndarray, found: np.ndarray) -> float:
    spread = float(expected.std()) or 1.0
    error = float(np.sqrt(np.square(found - expected).mean())) / spread
    return error if np.isfinite(error) else _LARGEST

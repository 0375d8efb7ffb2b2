"""One float graph with all that it takes to quantise it, to score the result and to time it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.errors import ArtifactError
from pipeline.runtime.quantizer import QuantizedGraph, Quantizer
from stages.benchmark.protocol import Protocol, Setting
from stages.quantize.calibration import Calibration, calibrate
from stages.quantize.graph import image_shape, input_sizes, touching
from stages.quantize.images import Batches, first
from stages.quantize.report import Score, Timing
from stages.quantize.schemes import OPERATORS, Scheme
from stages.quantize.scoring import Scorer
from stages.quantize.timing import Looker, time_pair

_SAMPLE_BYTES = 256 << 20  # of activations, where layers are compared one by one
_WORTH = 1.05  # times as fast, that one graph must seem for a longer comparison of two
_SAMPLE = (8, 64)  # fewest and most images for it

Progress = Callable[[str], None]
"""Called with what begins; what it raises ends the work."""


class Workbench:
    """What steps that choose have in common. Nothing here decides anything.

        with Workbench(path, setting) as bench:
            bench.calibrate(bench.sketch(scheme).tensors, train, 256)
            bench.score_on(search, 5000)
            graph = bench.quantize(scheme, exclude=["conv_3"])
            bench.screen(graph.model).output_error, bench.time(graph.model).ratio

    `steps` names what was done to the float graph, for the report.
    A graph that onnxruntime refuses is None, or has no score; `refusals` then says why.

    Args:
        path: the float file, which is only read, and in a child process.
        setting: provider, batch and threads that models are timed at.
        protocol: how long, where it is close.
        tell: told what begins.
    Raises:
        ArtifactError: no ONNX file of a float32 network, or quantised already.
    """

    def __init__(
        self,
        path: Path,
        setting: Setting | None = None,
        protocol: Protocol | None = None,
        tell: Progress = lambda what: None,
    ) -> None:
        self.path, self.tell = path, tell
        self.setting, self.protocol = setting or Setting(), protocol or Protocol()
        self.seconds: dict[str, float] = {}
        self.refusals: list[str] = []
        self.calibration: Calibration | None = None
        self.scorer: Scorer | None = None
        self._sample: np.ndarray | None = None
        self._saturates: dict[tuple[str, str], bool] = {}
        self.steps: tuple[str, ...] = ()
        tell(f"preparing {path.name}")
        self._quantizer = Quantizer()
        try:
            with self.phase("prepare"):
                self.float_graph = self._quantizer.prepare(path)
        except BaseException:
            self._quantizer.close()
            raise
        self.proto = onnx.ModelProto.FromString(self.float_graph)
        # one for all looks: the float file is opened and warmed up once
        self._looker = Looker(self.path, self.setting, self.image_shape)

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *exc: object) -> None:
        self._quantizer.close()
        self._looker.close()
        if self.scorer is not None:
            self.scorer.close()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add what it takes to `seconds`."""
        begin = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begin

    @property
    def opset(self) -> int:
        return next(e.version for e in self.proto.opset_import if e.domain in ("", "ai.onnx"))

    @property
    def fixed_batch(self) -> int | None:
        """The batch that the file has in its graph; None where it is free."""
        return input_sizes(self.proto)[0]

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(C, H, W) where the file says it."""
        return image_shape(self.proto)

    def replace_float_graph(self, model: bytes) -> None:
        """Quantise another graph of the same function from now on, such as an equalised one; it
        must be calibrated anew.
        """
        self._quantizer.load(model)
        self.float_graph, self.calibration = model, None
        self.proto = onnx.ModelProto.FromString(model)

    def calibrate(self, tensors: Sequence[str], images: Batches, count: int) -> Calibration:
        """Take the ranges of these activations on the first `count` images."""
        self.tell("calibrating")
        with self.phase("calibrate"):
            found = calibrate(self._quantizer, tensors, images, count, self.fixed_batch)
        fewest, most = _SAMPLE
        size = max(fewest, min(most, _SAMPLE_BYTES // max(1, found.bytes_per_image)))
        batches = [x for x, _ in first(images, max(size, self.fixed_batch or 1), found.batch)]
        whole = [x for x in batches if len(x) == (self.fixed_batch or len(x))]
        self.calibration, self._sample = found, np.concatenate(whole)
        return found

    def equalize(self) -> bytes:
        """The float graph with channels of like size on calibration images; empty where none can
        be moved.
        """
        assert self.calibration is not None, "calibrate first"
        assert self._sample is not None
        with self.phase("equalize"), self._refusable():
            return self._quantizer.equalize(self._sample, self.calibration.batch)
        return b""

    def score_on(self, images: Batches, count: int) -> None:
        """The images that graphs are compared with fp32 on; at most `count` of them."""
        self.tell(f"fp32 on at most {count} images")
        with self.phase("score"):
            self.scorer = Scorer(self.path, images, count, fixed=self.fixed_batch)

    def sketch(self, scheme: Scheme, exclude: Sequence[str] = ()) -> QuantizedGraph | None:
        """A graph as fast as the scheme's and of no use otherwise: ranges made up, one scale a
        weight. Nodes of the names `exclude` stay float.
        """
        with self.phase("sketch"), self._refusable():
            return self._make(scheme, per_channel=False, exclude=exclude)
        return None

    def quantize(self, scheme: Scheme, exclude: Sequence[str] = ()) -> QuantizedGraph | None:
        """The INT8 graph by `scheme`, with the ranges that were taken.

        Args:
            exclude: names of nodes that stay float, besides those that see infinite values.
        """
        assert self.calibration is not None, "calibrate first"
        ranges = self.calibration.ranges(scheme.calibrator)
        left_out = dict.fromkeys([*exclude, *touching(self.proto, self.calibration.infinite)])
        with self.phase("quantize"), self._refusable():
            return self._make(
                scheme, per_channel=scheme.per_channel, exclude=list(left_out), ranges=ranges
            )
        return None

    def correct_biases(
        self, graph: QuantizedGraph, most: int | None = None
    ) -> QuantizedGraph | None:
        """The graph with the mean error of every channel in its bias, on calibration images; on
        `most` of them where given.
        """
        assert self.calibration is not None, "calibrate first"
        assert self._sample is not None
        batch = self.calibration.batch
        with self.phase("correct biases"), self._refusable():
            made = self._quantizer.correct_biases(graph.model, self._sample[:most], batch)
            return replace(graph, model=made)
        return None

    def _make(self, scheme: Scheme, **how: Any) -> QuantizedGraph:
        return self._quantizer.quantize(
            activation=scheme.activation,
            weight=scheme.weight,
            reduce_range=scheme.reduce_range,
            operators=OPERATORS[scheme.operators],
            **how,
        )

    @contextmanager
    def _refusable(self) -> Iterator[None]:
        """Note what onnxruntime refuses, and go on."""
        try:
            yield
        except ArtifactError as error:
            self.refusals.append(error.message)

    def saturates(self, scheme: Scheme) -> bool:
        """Whether this machine's kernel for these types overflows 16 bits, by asking it."""
        types = (scheme.activation, scheme.weight)
        if types not in self._saturates:
            self._saturates[types] = self._quantizer.saturates(*types)
        return self._saturates[types]

    def look(self, models: Sequence[bytes]) -> list[Timing | None]:
        """How much faster than fp32 each is, briefly; None for one that does not run."""
        found: list[Timing | None] = [None] * len(models)
        with self.phase("look"):
            for index, model in enumerate(models):
                with self._refusable():
                    found[index] = self._looker.look(model)
        return found

    def time(self, model: bytes) -> Timing:
        """How much faster than fp32 it is, with an interval."""
        with self.phase("time"):
            return time_pair(self.path, model, self.setting, self.image_shape, self.protocol)

    def compare(self, before: bytes, model: bytes) -> Timing:
        """How much faster `model` is than `before`, both graphs of this network, with an interval;
        a wide one where there is little to gain.
        """
        with self.phase("time"):
            how = self.setting, self.image_shape, self.protocol, _WORTH
            return time_pair(before, model, *how)

    def screen(self, model: bytes, most: int | None = None) -> Score | None:
        """Against fp32 on a few images; on `most` where given."""
        assert self.scorer is not None, "give it images to score on"
        with self.phase("screen"), self._refusable():
            return self.scorer.screen(model, most)
        return None

    def score(self, model: bytes) -> Score:
        """Against fp32 on all images of the choice."""
        assert self.scorer is not None, "give it images to score on"
        with self.phase("score"):
            return self.scorer.score(model)

"""What activations do on calibration images. Loaded by path in the child process."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import onnx

_BINS = 2048  # of every tensor's histogram, as onnxruntime's percentile calibrater has
_ENTROPY_BINS = 256  # its search of a threshold is quadratic in them


class Activations:
    """A session of a float graph that also gives its activations, and what was seen of them.

    Args:
        model: the float graph.
        tensors: names of the activations.
        threads: of the session; 0 lets onnxruntime choose.
    """

    def __init__(self, model: onnx.ModelProto, tensors: list[str], threads: int) -> None:
        import onnxruntime as ort

        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        known = {value.name for value in (*model.graph.output, *model.graph.input)}
        values = {value.name: value for value in model.graph.value_info}
        shown.graph.output.extend(
            values[name] for name in tensors if name not in known and name in values
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.seen = {name: Seen() for name in tensors}

    def bytes_per_image(self, shape: list[int]) -> int:
        """Of all of them, for images (C, H, W) of this shape."""
        batch = self.session.get_inputs()[0].shape[0]
        count = batch if isinstance(batch, int) else 1
        found = self._run(np.zeros([count, *shape], np.float32))
        return sum(array.nbytes for array in found.values()) // count

    def _run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        feed = self.session.get_inputs()[0].name
        names = [value.name for value in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(None, {feed: x}), strict=True))
        return {name: value for name, value in {**found, feed: x}.items() if name in self.seen}

    def observe(self, x: np.ndarray) -> None:
        """Add one batch (N, C, H, W) to what is known of every watched tensor."""
        for name, values in self._run(x).items():
            self.seen[name].add(values)

    def reach(self, batches: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Largest absolute value of every channel (C,) of every watched tensor."""
        found: dict[str, np.ndarray] = {}
        for x in batches:
            for name, values in self._run(x).items():
                most = np.abs(values).max(axis=(0, *range(2, values.ndim)))
                found[name] = np.maximum(found.get(name, most), most)
        return found

    def ranges(self, method: str, percentile: float) -> tuple[dict[str, list[float]], list[str]]:
        """Lowest and highest value of every tensor, by onnxruntime's calibration `method`
        ("minmax", "percentile" or "entropy"), and the tensors that were not finite.
        """
        finite = {name: seen for name, seen in self.seen.items() if seen.finite and seen.batches}
        if method == "minmax":
            found = {name: [seen.mean_lowest, seen.mean_highest] for name, seen in finite.items()}
        else:
            found = _by_histogram(finite, method, percentile)
        return found, sorted(set(self.seen) - set(finite))


class Seen:
    """What one activation did: mean of the batches' extremes, extremes, and a histogram.

    The histogram has a fixed number of bins from -edge to edge. When a value lies beyond, edge
    doubles until it does not, and bins are merged in pairs: memory never grows.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.finite = True
        self.mean_lowest = self.mean_highest = 0.0
        self.lowest, self.highest = np.float32(np.inf), np.float32(-np.inf)
        self.edge = 0.0
        self.counts: np.ndarray = np.zeros(_BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        """One batch of any shape; of a tensor that was not finite once nothing is kept."""
        lowest, highest = values.min(), values.max()
        self.finite = self.finite and bool(np.isfinite(lowest) and np.isfinite(highest))
        if not self.finite:
            return
        self.batches += 1
        self.mean_lowest += (float(lowest) - self.mean_lowest) / self.batches
        self.mean_highest += (float(highest) - self.mean_highest) / self.batches
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        self._widen(max(-float(lowest), float(highest), 0.0))
        self._count(values)

    def _widen(self, reach: float) -> None:
        if self.edge == 0.0:  # all zeros so far: they stay in the middle
            self.edge = reach
        while reach > self.edge:
            outer = np.zeros(_BINS // 4, np.int64)
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([outer, pairs, outer])
            self.edge *= 2

    def _count(self, values: np.ndarray) -> None:
        if self.edge == 0.0:
            self.counts[_BINS // 2] += values.size
            return
        # numpy.histogram with equal bins, in a quarter of its time
        bins = (values.ravel() + np.float32(self.edge)) * np.float32(_BINS / (2 * self.edge))
        index = np.clip(bins, 0, _BINS - 1).astype(np.int32)
        self.counts += np.bincount(index, minlength=_BINS)

    def histogram(self, bins: int) -> tuple[np.ndarray, np.ndarray, np.float32, np.float32]:
        """Counts, edges, lowest and highest as onnxruntime's collector keeps them."""
        edges = np.linspace(-self.edge, self.edge, bins + 1, dtype=np.float32)
        counts = self.counts.reshape(bins, -1).sum(axis=1)
        return counts, edges, np.float32(self.lowest), np.float32(self.highest)


def _by_histogram(seen: dict[str, Seen], method: str, percentile: float) -> dict[str, list[float]]:
    """Ranges by onnxruntime's own rule for histograms."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    bins = _ENTROPY_BINS if method == "entropy" else _BINS
    collector = HistogramCollector(method, False, bins, 128, percentile, "same")
    collector.histogram_dict = {name: one.histogram(bins) for name, one in seen.items()}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        found = collector.compute_collection_result()
    return {name: [float(values[0]), float(values[1])] for name, values in found.items()}

"""The child's side of quantising: what it takes, what it sees, and that other ranges are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from quantize_nets import images, quadrants

from pipeline.errors import ArtifactError
from pipeline.runtime import rescaling
from pipeline.runtime.activations import Activations, Seen
from pipeline.runtime.quantization import Quantization
from pipeline.runtime.quantizer import Quantizer
from pipeline.runtime.saturation import saturates
from pipeline.system import has_dot_product, int8_features

OPERATORS = ["Conv", "Gemm", "Relu", "Add", "MaxPool", "Concat", "Flatten", "Identity"]
HOW = {
    "activation": "uint8",
    "weight": "int8",
    "per_channel": True,
    "reduce_range": True,
    "operators": OPERATORS,
    "exclude": [],
}


class Calibrated(Quantization):
    """A prepared graph with what some images did to its activations."""

    def __init__(self, path: Path) -> None:
        super().__init__(rescaling)
        self.prepare(str(path))
        tensors = self.quantize({**HOW, "ranges": None})[1]["tensors"]
        self.seen = Activations(self.model, tensors, 1)
        self.seen.observe(images(32))
        self.seen.observe(images(16, seed=5, scale=1.5))

    def ranges(self, method: str = "minmax", percentile: float = 0) -> dict[str, list[float]]:
        return self.seen.ranges(method, percentile)[0]


def pooled(path: Path) -> Path:
    """With two branches that are pooled, concatenated and halved again."""
    nodes = [
        helper.make_node("MaxPool", ["features"], ["pool"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Concat", ["features", "pool"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "half.weight"], ["altered"]),
    ]
    half = np.concatenate([np.eye(8), np.eye(8) / 8], axis=1).astype(np.float32)
    return quadrants(path, nodes, constants={"half.weight": half.reshape(8, 16, 1, 1)})


def arrays(graph: bytes) -> dict[str, np.ndarray]:
    initializers = onnx.ModelProto.FromString(graph).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in initializers}


def test_a_graph_rescaled_to_other_ranges_is_the_one_quantised_with_them(tmp_path: Path) -> None:
    path = pooled(tmp_path / "pooled.onnx")
    one, other = Calibrated(path), Calibrated(path)
    wide, narrow = one.ranges(), one.ranges("percentile", 90)
    assert wide != narrow
    first = one.quantize({**HOW, "ranges": wide})[0]
    rescaled = one.quantize({**HOW, "ranges": narrow})[0]
    assert rescaled == other.quantize({**HOW, "ranges": narrow})[0]
    assert rescaled != first


def test_rescaling_follows_onnxruntimes_quantiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Calibrated(pooled(tmp_path / "pooled.onnx"))
    wide, narrow = made.ranges(), made.ranges("percentile", 90)
    made.quantize({**HOW, "ranges": wide})
    rescaled = arrays(made.quantize({**HOW, "ranges": narrow})[0])
    monkeypatch.setattr(rescaling, "rescale", lambda *_: False)
    theirs = arrays(made.quantize({**HOW, "ranges": narrow})[0])
    assert rescaled.keys() == theirs.keys()
    assert all(np.array_equal(rescaled[name], theirs[name]) for name in theirs)


def test_the_histogram_is_numpys_and_its_size_is_fixed() -> None:
    generator = np.random.default_rng(0)
    batches = [generator.normal(0, width, 4000).astype(np.float32) for width in (0.01, 1, 40)]
    seen = Seen()
    for batch in batches:
        seen.add(batch)
    counts, edges, lowest, highest = seen.histogram(2048)
    whole = np.concatenate(batches)
    expected, _ = np.histogram(whole, edges)
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 12  # round-off at an edge
    assert (lowest, highest) == (whole.min(), whole.max())
    assert counts.sum() == whole.size
    assert len(seen.counts) == 2048


def test_extremes_are_averaged_over_the_batches() -> None:
    seen = Seen()
    for top in (1.0, 2.0, 6.0):
        seen.add(np.array([-1, top], np.float32))
    assert (seen.mean_lowest, seen.mean_highest) == pytest.approx((-1, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_once_has_no_range(bad: float) -> None:
    seen = Seen()
    seen.add(np.ones(3, np.float32))
    seen.add(np.array([0, bad], np.float32))
    seen.add(np.ones(3, np.float32))
    assert not seen.finite


def test_constant_activations_have_a_range(tmp_path: Path) -> None:
    made = Calibrated(quadrants(tmp_path / "net.onnx"))
    for value in (0.0, 3.0):
        made.seen = Activations(made.model, list(made.seen.seen), 1)
        made.seen.observe(np.full((4, 1, 8, 8), value, np.float32))
        for method, percentile in (("minmax", 0), ("percentile", 99.9), ("entropy", 0)):
            graph = made.quantize({**HOW, "ranges": made.ranges(method, percentile)})[0]
            scales = [scale for name, scale in arrays(graph).items() if name.endswith("_scale")]
            assert scales
            assert all((scale > 0).all() for scale in scales)


@pytest.mark.parametrize("opset", [11, 17, 21, 23])
def test_opset_and_ir_version_stay_or_rise_to_13(tmp_path: Path, opset: int) -> None:
    made = Calibrated(quadrants(tmp_path / "net.onnx", opset=opset))
    graph = made.quantize({**HOW, "ranges": made.ranges()})[0]
    proto = onnx.ModelProto.FromString(graph)
    assert [(e.domain, e.version) for e in proto.opset_import] == [("", max(13, opset))]
    assert proto.ir_version == 8
    assert {entry.key for entry in proto.metadata_props} == {"classes"}
    onnx.checker.check_model(proto, full_check=True)


def test_a_range_that_was_not_taken_is_an_error(tmp_path: Path) -> None:
    made = Calibrated(quadrants(tmp_path / "net.onnx"))
    ranges = made.ranges()
    del ranges["features"]
    with pytest.raises(ValueError, match="no range was taken of features"):
        made.quantize({**HOW, "ranges": ranges})


def test_saturation_is_what_the_processor_would_do() -> None:
    assert not saturates("uint8", "uint8")
    features = int8_features()
    if "AVX2" in features:
        assert saturates("uint8", "int8") is not has_dot_product(features)


def test_a_quantised_file_is_refused(tmp_path: Path) -> None:
    made = Calibrated(quadrants(tmp_path / "net.onnx"))
    graph = made.quantize({**HOW, "ranges": made.ranges()})[0]
    (tmp_path / "int8.onnx").write_bytes(graph)
    with Quantizer() as quantizer, pytest.raises(ArtifactError, match="quantised already"):
        quantizer.prepare(tmp_path / "int8.onnx")


def test_external_data_are_read_beside_the_file_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    proto = onnx.load(quadrants(tmp_path / "net.onnx"))
    inside = tmp_path / "inside" / "net.onnx"
    onnx.save_model(
        proto, inside, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with Quantizer() as quantizer:
        prepared = onnx.ModelProto.FromString(quantizer.prepare(inside))
        assert not any(tensor.external_data for tensor in prepared.graph.initializer)
        (tmp_path / "inside" / "weights.bin").rename(tmp_path / "weights.bin")
        outside = onnx.load(inside, load_external_data=False)
        for tensor in outside.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../weights.bin"
        inside.write_bytes(outside.SerializeToString())
        with pytest.raises(ArtifactError, match="outside the file's own folder"):
            quantizer.prepare(inside)


def test_memory_of_a_calibration_does_not_grow_with_its_images(tmp_path: Path) -> None:
    path = quadrants(tmp_path / "net.onnx")
    x = images(512)
    with Quantizer() as quantizer:
        quantizer.prepare(path)
        tensors = quantizer.quantize(**HOW, ranges=None).tensors  # type: ignore[arg-type]
        quantizer.watch(tensors, (1, 8, 8), threads=1)
        peaks = []
        for batches in (20, 200):
            for _ in range(batches):
                quantizer.observe(x)
            peaks.append(_peak_kb(quantizer.pid))
        seen = 512 * quantizer.watch(tensors, (1, 8, 8), threads=1) * 220
    assert seen > 90e6  # bytes of activations
    assert peaks[1] - peaks[0] < 8_000


def _peak_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        pytest.skip("no /proc here")
    return int(status.read_text().partition("VmHWM:")[2].split()[0])

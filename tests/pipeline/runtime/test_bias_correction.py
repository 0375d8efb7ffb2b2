"""Bias correction of quantised graphs, and rewrites of float ones, in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from pipeline.runtime import rescaling
from pipeline.runtime.bias_correction import corrected
from pipeline.runtime.lookups import with_lookups
from pipeline.runtime.quantization import Quantization
from pipeline.runtime.rewrites import rewritten

FLOAT = onnx.TensorProto.FLOAT
OPERATORS = ["Conv", "Gemm", "Relu", "Add", "GlobalAveragePool", "Flatten"]


def network(path: Path, nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", FLOAT, ["batch", 4, 6, 6])],
        [helper.make_tensor_value_info("logits", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(w, np.float32), name) for name, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8)
    )
    onnx.save(model, path)
    return model


def coarse(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights of which the largest makes the step so long that the others are rounded away."""
    weight = generator.uniform(0.1, 0.45, shape) / 127
    weight.flat[0] = 1.0
    return weight


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution, two that share a bias (one depthwise), one without, and a Gemm."""
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    r = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["input", "a", "bias"], ["a_out"], "a"),
        helper.make_node("Relu", ["a_out"], ["a_relu"]),
        helper.make_node("Conv", ["a_relu", "b", "bias"], ["b_out"], "b", group=8),
        helper.make_node("Conv", ["a_relu", "c"], ["c_out"], "c"),
        helper.make_node("Add", ["b_out", "c_out"], ["sum"], "sum"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "d", "d_bias"], ["logits"], "d", transB=1),
    ]
    network(
        path, nodes, a=coarse(r, 8, 4, 1, 1), b=coarse(r, 8, 1, 3, 3), c=coarse(r, 8, 8, 3, 3),
        d=coarse(r, 3, 8), bias=r.normal(0, 0.1, 8), d_bias=r.normal(0, 0.1, 3),
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.5, 1.5, (24, 4, 6, 6)).astype(np.float32)


def quantised(path: Path, x: np.ndarray, exclude: list[str]) -> tuple[Quantization, bytes]:
    made = Quantization(rescaling)
    made.prepare(str(path))
    how = {"activation": "uint8", "weight": "int8", "per_channel": False, "reduce_range": False}
    how |= {"operators": OPERATORS, "exclude": exclude}
    sketch = onnx.ModelProto.FromString(made.quantize({**how, "ranges": None})[0])
    seen = run(made.model, x, [v.name for v in made.model.graph.value_info])
    ranges = {name: [float(v.min()), float(v.max())] for name, v in seen.items()}
    ranges["input"] = [0.0, 1.5]
    assert any(node.op_type == "DequantizeLinear" for node in sketch.graph.node)
    return made, made.quantize({**how, "ranges": ranges})[0]


def run(model: onnx.ModelProto, x: np.ndarray, names: list[str] | None = None) -> dict:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in names or []:
        watched.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    return dict(zip(outputs, session.run(None, {"input": x}), strict=True))


@pytest.mark.parametrize("batch", [24, 7])
def test_mean_logits_become_those_of_the_float_network(net: Path, x: np.ndarray, batch: int):
    made, graph = quantised(net, x, [])
    after = onnx.ModelProto.FromString(corrected(made.model, graph, x, batch))
    onnx.checker.check_model(after, full_check=True)
    wanted = run(made.model, x)["logits"].mean(axis=0)
    error = np.abs(run(onnx.ModelProto.FromString(graph), x)["logits"].mean(axis=0) - wanted)
    left = np.abs(run(after, x)["logits"].mean(axis=0) - wanted)
    step = (wanted.max() - wanted.min()) / 255  # of the outputs, whose mean cannot be nearer
    assert error.max() > 5 * step
    assert left.max() < step


def test_layers_that_stayed_float_keep_their_bias(net: Path, x: np.ndarray):
    made, graph = quantised(net, x, ["b", "d"])
    after = onnx.ModelProto.FromString(corrected(made.model, graph, x, 24))
    inputs = {node.name: list(node.input) for node in after.graph.node}
    assert inputs["b"][2] == "bias"
    assert inputs["d"][2] == "d_bias"
    assert inputs["c"][2] == "c_corrected_bias_dequantised"
    assert len(inputs["c"]) == 3  # it had none


def test_a_product_that_multiplies_its_bias_is_left_alone(net: Path, x: np.ndarray, tmp_path: Path):
    model = onnx.load(net)
    gemm = next(node for node in model.graph.node if node.name == "d")
    gemm.attribute.append(helper.make_attribute("beta", 2.0))
    onnx.save(model, tmp_path / "net.onnx")
    made, graph = quantised(tmp_path / "net.onnx", x, [])
    after = onnx.ModelProto.FromString(corrected(made.model, graph, x, 24))
    inputs = {node.name: list(node.input) for node in after.graph.node}
    assert "corrected" not in inputs["d"][2]
    assert "corrected" in inputs["a"][2]


def test_a_bias_that_two_layers_share_is_corrected_for_each(net: Path, x: np.ndarray):
    made, graph = quantised(net, x, [])
    after = onnx.ModelProto.FromString(corrected(made.model, graph, x, 24))
    biases = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    assert not np.array_equal(biases["a_corrected_bias"], biases["b_corrected_bias"])
    assert not [name for name in biases if name.startswith("bias")]  # nobody reads the old one


@pytest.mark.parametrize(
    ("axes", "keepdims", "expected"),
    [([2, 3], 1, True), ([-1, -2], 1, True), ([2, 3], 0, False), ([3], 1, False)],
)
def test_a_mean_over_height_and_width_is_a_global_average(
    tmp_path: Path, x: np.ndarray, axes: list[int], keepdims: int, expected: bool
):
    nodes = [
        helper.make_node("Relu", ["input"], ["r"], "r"),
        helper.make_node("ReduceMean", ["r"], ["logits"], "m", axes=axes, keepdims=keepdims),
    ]
    model = network(tmp_path / "m.onnx", nodes)
    before = run(model, x)["logits"]
    operators = [node.op_type for node in rewritten(model).graph.node]
    assert ("GlobalAveragePool" in operators) == expected
    np.testing.assert_allclose(run(model, x)["logits"], before, rtol=1e-6)


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_a_hard_sigmoid_is_a_change_of_scale(tmp_path: Path, x: np.ndarray, activation: str):
    nodes = [
        helper.make_node("HardSigmoid", ["input"], ["gate"], "gate", alpha=0.125, beta=0.5),
        helper.make_node("Mul", ["input", "gate"], ["logits"], "mul"),
    ]
    network(tmp_path / "s.onnx", nodes)
    made = Quantization(rescaling)
    made.prepare(str(tmp_path / "s.onnx"))
    how = {"activation": activation, "weight": "int8", "per_channel": True, "reduce_range": False}
    how |= {"operators": ["HardSigmoid", "Mul"], "exclude": []}
    ranges = {"input": [-8.0, 8.0], "gate": [0.0, 1.0], "logits": [-0.6, 8.0]}
    graph = made.quantize({**how, "ranges": ranges})[0]
    after = onnx.ModelProto.FromString(with_lookups(graph))
    onnx.checker.check_model(after, full_check=True)
    assert [n.op_type for n in after.graph.node if n.name in ("gate", "mul")] == [
        "LeakyRelu",
        "Mul",
    ]
    wide = (x - 1) * 16  # into both ends
    expected = run(made.model, wide)["logits"]
    np.testing.assert_allclose(run(after, wide)["logits"], expected, atol=0.09)  # a step is 0.06


def test_a_hard_swish_becomes_a_product(tmp_path: Path, x: np.ndarray):
    model = network(
        tmp_path / "h.onnx", [helper.make_node("HardSwish", ["input"], ["logits"], "h")]
    )
    wide = (x - 1) * 12
    before = run(model, wide)["logits"]
    assert [node.op_type for node in rewritten(model).graph.node] == ["HardSigmoid", "Mul"]
    np.testing.assert_allclose(run(model, wide)["logits"], before, atol=1e-6)

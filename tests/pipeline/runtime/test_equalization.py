"""Channels of like size by numbers that cancel: the same outputs, and more of the 8 bits used."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from pipeline.runtime.activations import Activations
from pipeline.runtime.equalization import equalized, spans

FLOAT = onnx.TensorProto.FLOAT
SIZES = np.geomspace(1, 1e-2, 8, dtype=np.float32)  # of the channels


def network(between: str = "Relu", sizes: np.ndarray = SIZES) -> onnx.ModelProto:
    """A trunk that a depthwise block adds to, its channels of these sizes, and two readers."""
    r = np.random.default_rng(0)
    undone = (1 / sizes).reshape(1, 8, 1, 1)
    weights = {
        "a": r.uniform(0.2, 1, (8, 3, 1, 1)) * sizes.reshape(8, 1, 1, 1),
        "a_bias": r.uniform(0, 0.2, 8) * sizes,
        "b": r.uniform(0.2, 1, (8, 1, 3, 3)) / 9,
        "c": r.normal(0, 1, (6, 8, 1, 1)) * undone,
        "d": r.normal(0, 1, (4, 6)),
        **({"top": np.array(1.0)} if between == "Clip" else {}),
    }
    nodes = [
        helper.make_node("Conv", ["input", "a", "a_bias"], ["a_out"]),
        helper.make_node(between, ["a_out", "", "top"] if between == "Clip" else ["a_out"], ["x"]),
        helper.make_node("Conv", ["x", "b"], ["b_out"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b_out", "x"], ["sum"]),
        helper.make_node("Conv", ["sum", "c"], ["c_out"]),
        helper.make_node("GlobalAveragePool", ["c_out"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", FLOAT, ["batch", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.asarray(w, np.float32), name) for name, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


X = np.random.default_rng(1).uniform(0, 1, (12, 3, 6, 6)).astype(np.float32)


def reach(model: onnx.ModelProto, names: list[str]) -> dict[str, np.ndarray]:
    return Activations(model, names, 1).reach([X[:8], X[8:]])


def logits(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": X})[0]


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu", "Identity"])
def test_the_function_stays_and_small_channels_grow(between: str) -> None:
    before = network(between)
    data = equalized(before, lambda names: reach(before, names))
    after = onnx.ModelProto.FromString(data)
    np.testing.assert_allclose(logits(after), logits(before), rtol=1e-4, atol=1e-5)
    for name in ("x", "sum"):
        spread = [reach(model, [name])[name] for model in (before, after)]
        assert spread[0].min() / spread[0].max() < 0.03
        assert spread[1].min() / spread[1].max() > 0.06  # the square root of it, about


def test_nothing_is_moved_past_a_clip() -> None:
    model = network("Clip")
    assert not any({"a_out", "x", "sum"} & span for span in spans(model))
    assert spans(network()) == [{"a_out", "x", "b_out", "sum"}]


def test_channels_of_like_size_stay_as_they_are() -> None:
    model = network(sizes=np.ones(8, np.float32))
    assert equalized(model, lambda names: reach(model, names)) == b""


def test_a_weight_that_another_layer_shares_is_not_multiplied() -> None:
    model = network()
    model.graph.node[4].input.append("a_bias")  # (8,) for 6 channels: never run
    assert spans(model) == []


def test_what_is_not_finite_moves_nothing() -> None:
    model = network()
    nothing = {name: np.full(8, np.nan) for name in ("a_out", "x", "b_out", "sum")}
    assert equalized(model, lambda names: nothing) == b""

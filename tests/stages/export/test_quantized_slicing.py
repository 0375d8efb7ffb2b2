"""Slices of a quantised graph compute what it computes with the cut channels silenced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_nets import lively
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from stages.export import OnnxSlicer, export_proto
from stages.export.quantized import follow
from stages.prune import ChannelPlan
from stages.trace import ChannelGraph, trace

X = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))
BIG = 40 * X  # beyond the ranges that were measured
STEP = 0.005  # of outputs that are not quantised


class Inverted(nn.Module):
    """MobileNetV2's block: wider, depthwise, narrow again, and added."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.widen, self.norm = nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depth = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.narrow = nn.Conv2d(wide, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = nn.functional.relu6(self.norm(self.widen(x)))
        return x + self.narrow(nn.functional.relu6(self.depth(wide)))


class Plain(nn.Module):
    """ResNet's block: added, then ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Both(nn.Module):
    """Both blocks between a stem and a flatten, so that a channel is several columns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inverted, self.plain = Inverted(8, 16), Plain(8)
        self.point, self.fc = nn.Conv2d(8, 12, 1), nn.Linear(12 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(self.inverted(torch.relu(self.stem(x))))
        return self.fc(nn.functional.max_pool2d(torch.relu(self.point(x)), 4).flatten(1))


class Batches(CalibrationDataReader):
    """One batch."""

    def __init__(self, x: np.ndarray) -> None:
        self.rest: Iterator[dict[str, np.ndarray]] = iter([{"input": x}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.rest, None)


class Made(NamedTuple):
    """A network's graph, its export, and that quantised."""

    graph: ChannelGraph
    original: onnx.ModelProto
    quantized: onnx.ModelProto

    def slice(self, plan: ChannelPlan) -> onnx.ModelProto:
        slicer = OnnxSlicer(self.original, self.graph, self.quantized)
        return slicer.slice(plan.kept_of(self.graph), plan.drop)


Quantize = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="module")
def quantize(tmp_path_factory: pytest.TempPathFactory) -> Quantize:
    """In QDQ form, U8S8, its weights of 7 bits: where a processor lacks VNNI, 8 overflow."""
    path: Path = tmp_path_factory.mktemp("int8") / "model.onnx"

    def quantized(proto: onnx.ModelProto, **options: object) -> onnx.ModelProto:
        scheme = {"per_channel": True, "reduce_range": True, **options}
        quantize_static(  # which moves the weights out of what it is given
            copied(proto), path, Batches(X.numpy()), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, **scheme,
        )  # fmt: skip
        return onnx.load(path)

    return quantized


@pytest.fixture(scope="module")
def made(quantize: Quantize) -> Made:
    torch.manual_seed(0)
    net = lively(Both())
    proto = export_proto(net, X[:2])
    return Made(trace(net, X[:1]), proto, quantize(proto))


def run(proto: onnx.ModelProto, x: Tensor = X) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return np.asarray(session.run(None, {"input": x.numpy()})[0])


def arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    return result


def silenced(made: Made, plan: ChannelPlan) -> onnx.ModelProto:
    """Not cut, but with zeros where the plan cuts weights and biases."""
    removed = made.graph.removed_slices(plan.kept_of(made.graph))
    gone = plan.branches(made.graph)
    followed, result = follow(made.quantized, made.original), copied(made.quantized)
    scales = {name for node in result.graph.node for name in node.input[1:]}
    for tensor in result.graph.initializer:
        origin = followed.origins.get(tensor.name)
        if origin is None or tensor.name in scales:
            continue
        weight = origin.initializer.removesuffix("_bias")
        values = numpy_helper.to_array(tensor).copy()
        for dim in range(values.ndim) if weight == origin.initializer else (0,):
            if (weight, dim) in removed:
                np.moveaxis(values, dim, 0)[removed[weight, dim]] = 0
        if any(branch.holds(weight) for branch in gone):
            values[...] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return result


def check_silenced(
    made: Made, plan: ChannelPlan, *, steps: int = 0, images: tuple[Tensor, ...] = (X, BIG)
) -> onnx.ModelProto:
    """Within so many steps of the output, 0: to the last bit."""
    sliced, silent = made.slice(plan), silenced(made, plan)
    onnx.checker.check_model(sliced)
    step = float(arrays(made.quantized).get("logits_scale", STEP))
    for x in images:
        found, expected = (run(proto, x) for proto in (sliced, silent))
        assert np.abs(found - expected).max() <= steps * step * 1.01
    assert np.abs(run(sliced) - run(made.quantized)).max() > 3 * step
    return sliced


def test_a_slice_equals_the_silenced_graph(made: Made) -> None:
    plan = ChannelPlan.uniform(made.graph, cut=0.5)
    before, after = arrays(made.quantized), arrays(check_silenced(made, plan))
    assert after["inverted.depth.weight_quantized"].shape == (8, 1, 3, 3)
    assert after["inverted.depth.weight_scale"].shape == (8,)
    assert after["fc.weight_quantized"].shape == (5, 6 * 9)
    kinds = {"weight": "int8", "bias": "int32"}
    assert {after[f"point.{name}_quantized"].dtype.name for name in kinds} == {*kinds.values()}
    assert {name: values.dtype for name, values in after.items()} == {
        name: before[name].dtype for name in after if name in before
    } | {name: after[name].dtype for name in after if name not in before}


def test_whole_it_is_the_quantised_graph(made: Made) -> None:
    np.testing.assert_array_equal(run(made.slice(ChannelPlan({}))), run(made.quantized))


@pytest.mark.parametrize("drop", [("inverted",), ("plain",), ("inverted", "plain")])
def test_a_branch_of_width_0_goes_with_its_nodes(
    made: Made, drop: tuple[str, ...], tmp_path: Path
) -> None:
    # quantised once instead of twice, and not beyond the range of what is left
    sliced = check_silenced(made, ChannelPlan({}, {}, drop), steps=3, images=(X,))
    assert not [name for name in arrays(sliced) if name.startswith(drop)]
    kept = operators(sliced, tmp_path / "a.onnx")
    whole = operators(made.quantized, tmp_path / "b.onnx")
    assert kept["QLinearAdd"] == whole["QLinearAdd"] - len(drop)
    between = ("QuantizeLinear", "DequantizeLinear")  # what was in between is quantised once
    assert [kept[name] for name in between] == [whole[name] for name in between]


def operators(proto: onnx.ModelProto, path: Path) -> Counter[str]:
    """What onnxruntime makes of a graph."""
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(path)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"per_channel": False}, 0),
        ({"extra_options": {"AddQDQPairToWeight": True}}, 0),
        ({"op_types_to_quantize": ["Conv", "Add"]}, 1),  # sums of fewer floats round otherwise
    ],
)
def test_other_forms_are_followed_too(
    made: Made, quantize: Quantize, options: dict[str, object], steps: int
) -> None:
    other = made._replace(quantized=quantize(made.original, **options))
    check_silenced(other, ChannelPlan.uniform(made.graph, cut=0.5), steps=steps)

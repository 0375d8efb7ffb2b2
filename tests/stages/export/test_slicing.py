"""A sliced graph computes what the cut network computes, for every architecture it accepts."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_nets import TORCHVISION, lively, small, small_graph, small_proto, torchvision_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import Refused
from stages.export import OnnxSlicer, export_proto, slice_onnx
from stages.export.slicing import free_shape
from stages.prune import ChannelPlan, prune
from stages.trace import trace


def run(proto: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, {"input": x.numpy()})[
        0
    ]


def check_equal(proto: onnx.ModelProto, network: nn.Module, x: torch.Tensor) -> None:
    onnx.checker.check_model(proto)
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(
        run(proto, x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("name", "fresh"),
    # fresh norms are all equal, so the exporter merges them where it cannot fold them: DenseNet's
    [("densenet", True), *((name, False) for name in TORCHVISION)],
)
def test_outputs_equal_those_of_the_cut_network(name: str, fresh: bool) -> None:
    model = torchvision_net(name).eval() if fresh else lively(torchvision_net(name))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    graph = trace(model, x)
    plan = ChannelPlan.uniform(graph, cut=0.5)
    sliced = slice_onnx(export_proto(model, x), graph, plan)
    before = sum(np.prod(shape) for shape in graph.parameters.values())
    after = sum(np.prod(tensor.dims) for tensor in sliced.graph.initializer)
    assert after < 0.75 * before
    check_equal(sliced, prune(model, graph, plan), x)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_plan_of_a_small_network(data: st.DataObject) -> None:
    keep = {
        group.id: tuple(
            sorted(data.draw(st.sets(st.integers(0, group.size - 1), min_size=1), label=group.id))
        )
        for group in small_graph().prunable
    }
    plan = ChannelPlan(keep)
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    check_equal(
        slice_onnx(small_proto(), small_graph(), plan), prune(small(), small_graph(), plan), x
    )


def test_has_the_shapes_and_operators_of_an_export_of_the_cut_network() -> None:
    plan = ChannelPlan.uniform(small_graph(), cut=0.5)
    sliced = slice_onnx(small_proto(), small_graph(), plan)
    exported = export_proto(prune(small(), small_graph(), plan), torch.zeros(2, 3, 8, 8))
    assert [node.op_type for node in sliced.graph.node] == [
        node.op_type for node in exported.graph.node
    ]

    def weights(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
        return {
            t.name: tuple(t.dims)
            for t in proto.graph.initializer
            if t.data_type == onnx.TensorProto.FLOAT
        }

    def groups(proto: onnx.ModelProto) -> list[int]:
        return [a.i for node in proto.graph.node for a in node.attribute if a.name == "group"]

    assert weights(sliced) == weights(exported)
    assert groups(sliced) == groups(exported)
    assert 4 in groups(sliced)


def test_a_plan_that_keeps_all_changes_nothing() -> None:
    x = torch.randn(2, 3, 8, 8)
    whole = ChannelPlan({group.id: tuple(range(group.size)) for group in small_graph().prunable})
    np.testing.assert_array_equal(
        run(slice_onnx(small_proto(), small_graph(), whole), x), run(small_proto(), x)
    )


def test_one_slicer_serves_many_plans_and_leaves_the_base_alone() -> None:
    before = small_proto().SerializeToString(deterministic=True)
    slicer = OnnxSlicer(small_proto(), small_graph())
    first = ChannelPlan.uniform(small_graph(), cut=0.5).keep
    bytes_before = slicer.slice_bytes(first)
    slicer.slice_bytes(ChannelPlan.uniform(small_graph(), cut=0.25).keep)
    assert slicer.slice_bytes(first) == bytes_before
    assert small_proto().SerializeToString(deterministic=True) == before


def test_refuses_unknown_groups_and_empty_layers() -> None:
    with pytest.raises(Refused, match="no group"):
        slice_onnx(small_proto(), small_graph(), ChannelPlan({"elsewhere": (0,)}))
    with pytest.raises(Refused, match="leaves nothing"):
        slice_onnx(small_proto(), small_graph(), ChannelPlan({small_graph().prunable[0].id: ()}))


def test_refuses_weights_without_a_name() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(small_proto())
    for tensor in proto.graph.initializer:
        tensor.name = tensor.name.replace("point.weight", "val_7")
    for node in proto.graph.node:
        for slot, name in enumerate(node.input):
            node.input[slot] = name.replace("point.weight", "val_7")
    with pytest.raises(Refused, match="val_7"):
        OnnxSlicer(proto, small_graph())


@pytest.mark.parametrize(
    ("given_shape", "target", "expected"),
    [
        ([None, 64, 7, 7], [-1, 3136], [0, -1]),
        ([None, 64, 1, 1], [-1, 64], [0, -1]),
        ([None, 116, 8, 8], [-1, 2, 58, 8, 8], [0, 2, -1, 8, 8]),
        ([None, 58, 2, 8, 8], [-1, 116, 8, 8], [0, -1, 8, 8]),
        ([None, 6, 4], [2, 12], None),
        (None, [-1, 12], None),
    ],
)
def test_shapes_that_hold_for_any_width(
    given_shape: list[int | None] | None, target: list[int], expected: list[int] | None
) -> None:
    assert free_shape(given_shape, target) == expected

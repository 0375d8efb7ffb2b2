"""Of a branch that has gone no node is left, neither in an export nor in a slice of one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_nets import lively
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pipeline.models.resnet_cifar import CifarResNet
from pipeline.torchvision_import import import_torchvision
from stages.export import OnnxSlicer, export_proto, slice_onnx
from stages.export.zeros import remove_zeros
from stages.prune import ChannelPlan, prune
from stages.trace import ChannelGraph, trace

X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

# of one block, its batch norms folded
BLOCK = {
    "mobilenet_v2": Counter(Conv=3, Clip=2, Add=1),
    "resnet14": Counter(Conv=2, Relu=1, Add=1),
}
DROP = {
    "mobilenet_v2": ("features.3", "features.5", "features.6"),
    "resnet14": ("layer1.1", "layer2.0", "layer2.1"),
}
# ReLUs that would follow another one; that of layer2.0 follows a padded shortcut
TWICE = {"mobilenet_v2": Counter(), "resnet14": Counter(Relu=2)}
INVERTED = [[1, 8, 1, 1], [4, 16, 2, 2], [4, 24, 3, 2]]  # expansion, channels, blocks, stride


@pytest.fixture(scope="module", params=BLOCK)
def made(request: pytest.FixtureRequest) -> tuple[str, nn.Module, ChannelGraph, onnx.ModelProto]:
    torch.manual_seed(0)
    if request.param == "resnet14":
        net: nn.Module = CifarResNet(2, num_classes=4)
    else:
        net = import_torchvision().models.MobileNetV2(4, 1.0, INVERTED)
    net = lively(net)
    return request.param, net, trace(net, X[:1]), export_proto(net, X[:1])


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def plan_of(graph: ChannelGraph, drop: tuple[str, ...]) -> ChannelPlan:
    """These branches go, and a third of everything else."""
    gone = {group for name in drop for group in graph.removable[name].groups}
    keep = ChannelPlan.uniform(graph, 0.3).keep
    return ChannelPlan({group: k for group, k in keep.items() if group not in gone}, {}, drop)


def check_outputs(proto: onnx.ModelProto, network: nn.Module) -> None:
    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for x in (X, X[:1]):
        with torch.no_grad():
            expected = network(x).numpy()
        found = session.run(None, {"input": x.numpy()})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_no_node_of_a_dropped_branch_is_exported(made) -> None:
    name, net, graph, whole = made
    plan = plan_of(graph, DROP[name])
    small = prune(net, graph, plan)
    exported = export_proto(small, X[:1])
    gone = Counter({op: 3 * count for op, count in BLOCK[name].items()}) + TWICE[name]
    assert operators(exported) == operators(whole) - gone
    check_outputs(exported, small)


def test_no_node_of_a_dropped_branch_is_in_the_slice(made) -> None:
    name, net, graph, whole = made
    plan = plan_of(graph, DROP[name])
    sliced = slice_onnx(whole, graph, plan)
    gone = Counter({op: 3 * count for op, count in BLOCK[name].items()}) + TWICE[name]
    assert operators(sliced) == operators(whole) - gone
    held = [
        t.name for t in sliced.graph.initializer for b in plan.branches(graph) if b.holds(t.name)
    ]
    assert not held
    check_outputs(sliced, prune(net, graph, plan))


def test_a_slicer_drops_branches_of_one_candidate_only(made) -> None:
    name, _, graph, whole = made
    slicer, plan = OnnxSlicer(whole, graph), plan_of(graph, DROP[name])
    before = slicer.slice_bytes({})
    by_counts = slicer.slice_bytes(plan.kept_of(graph))
    assert by_counts == slicer.slice_bytes(plan.kept_of(graph), plan.drop)
    assert len(by_counts) < len(before)
    assert slicer.slice_bytes({}) == before


class LayerScale(nn.Module):
    """As in ConvNeXt: what is added is multiplied by a factor that is no module's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gamma = nn.Conv2d(3, 6, 1), nn.Parameter(torch.rand(6, 1, 1))
        self.mlp = nn.Sequential(nn.Conv2d(6, 12, 1), nn.GELU(), nn.Conv2d(12, 6, 1))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.gamma * self.mlp(x)).mean((2, 3)))


def test_a_factor_of_the_branch_goes_as_well() -> None:
    net = lively(LayerScale())
    graph, whole = trace(net, X[:1]), export_proto(net, X[:1])
    (name,) = graph.removable
    plan = ChannelPlan({}, {}, (name,))
    small = prune(net, graph, plan)
    for proto in (slice_onnx(whole, graph, plan), export_proto(small, X[:1])):
        assert not {"Mul", "Add", "Expand"} & set(operators(proto))
        check_outputs(proto, small)


def sum_of(shape: list[int | str], zero: list[int]) -> onnx.ModelProto:
    """y = x + zeros, expanded from a number to a constant shape; then z = relu(y)."""
    nodes = [
        helper.make_node("Expand", ["none", "shape"], ["zeros"]),
        helper.make_node("Add", ["x", "zeros"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    sizes = np.broadcast_shapes([s if isinstance(s, int) else 1 for s in shape], tuple(zero))
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, list(sizes)),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.0), "none"),
        numpy_helper.from_array(np.array(zero, dtype=np.int64), "shape"),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_a_sum_with_zeros_goes_only_where_they_widen_nothing() -> None:
    equal, wider = sum_of([2, 3], [2, 3]), sum_of([1, 3], [2, 3])
    for proto in (equal, wider):
        remove_zeros(proto)
    assert [node.op_type for node in equal.graph.node] == ["Relu"]
    assert not equal.graph.initializer
    assert [node.op_type for node in wider.graph.node] == ["Expand", "Add", "Relu"]


@pytest.mark.parametrize("before", ["Relu", "Neg"])
def test_of_a_relu_that_then_follows_another_nothing_is_left(before: str) -> None:
    proto = sum_of([2, 3], [2, 3])
    for node in proto.graph.node:
        node.input[:] = ["first" if name == "x" else name for name in node.input]
    proto.graph.node.insert(0, helper.make_node(before, ["x"], ["first"]))
    proto.graph.node.append(helper.make_node("Abs", ["z"], ["out"]))
    proto.graph.output[0].name = "out"
    remove_zeros(proto)
    left = ["Relu", "Abs"] if before == "Relu" else ["Neg", "Relu", "Abs"]
    assert [node.op_type for node in proto.graph.node] == left
    onnx.checker.check_model(proto)


def test_the_name_of_an_output_stays() -> None:
    proto = sum_of([2, 3], [2, 3])
    del proto.graph.node[2]
    proto.graph.output[0].name = "y"
    remove_zeros(proto)
    assert [(n.op_type, *n.input, *n.output) for n in proto.graph.node] == [("Identity", "x", "y")]

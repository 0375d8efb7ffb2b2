"""A second real provider: OpenVINO's CPU plugin; skipped, and says so, where it is not there.

onnxruntime-openvino replaces onnxruntime; to run these tests without changing the environment:

    pip install --no-deps --target /tmp/openvino onnxruntime-openvino
    PYTHONPATH=/tmp/openvino python -m pytest -rs tests/stages/benchmark/test_openvino.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bench_graphs import QUICK, conv_file
from onnx import helper, numpy_helper
from torch import nn

from pipeline.errors import EnvironmentProblem
from pipeline.runtime import CPU, find_provider
from stages.benchmark import compare, measure_alignment
from stages.benchmark.node_profile import profile
from stages.benchmark.placement import check_placement
from stages.benchmark.protocol import Setting
from stages.export import check_parity, export_onnx

OPENVINO = find_provider("openvino").name
pytestmark = pytest.mark.skipif(
    OPENVINO not in onnxruntime.get_available_providers(),
    reason=(
        f"NOT TESTED: this onnxruntime has no {OPENVINO}; "
        f"see the top of {Path(__file__).name} for how to get one"
    ),
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


def test_parity_at_batch_1_and_n_with_both_providers(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "model.onnx"
    x = torch.randn(40, 3, 12, 12)
    export_onnx(model, x[:2], path)
    with torch.no_grad():
        y = model(x).argmax(1)
    report = check_parity(model, path, x, y, batches=(1, 16), providers=(CPU, OPENVINO)).require()
    assert [(row.provider, row.batch) for row in report.rows] == [
        (CPU, 1),
        (CPU, 16),
        (OPENVINO, 1),
        (OPENVINO, 16),
    ]
    assert all(row.top1_agreement == 1.0 for row in report.rows)
    assert report.max_abs > 0


def test_one_changed_weight_fails_parity_there_too(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "model.onnx"
    x = torch.randn(40, 3, 12, 12)
    export_onnx(model, x[:2], path)
    proto = onnx.load(path)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "0.weight")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[7] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(proto.SerializeToString())
    report = check_parity(model, path, x, torch.zeros(40, dtype=torch.int64), providers=(OPENVINO,))
    assert not report.passed


def test_every_convolution_is_placed_on_it(tmp_path: Path) -> None:
    assert check_placement(conv_file(tmp_path, 16), OPENVINO) == []
    nodes = profile(conv_file(tmp_path, 16), Setting(OPENVINO), runs=4).nodes
    assert {node.provider for node in nodes} == {OPENVINO}


def test_a_convolution_it_leaves_to_the_cpu_is_exit_4(tmp_path: Path) -> None:
    """OpenVINO runs no QLinearConv: onnxruntime silently gives it to its CPU kernels."""
    tensors = {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((4, 3, 3, 3), np.uint8)}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
            helper.make_node(
                "QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["i"], name="int8_conv"
            ),
            helper.make_node("DequantizeLinear", ["i", "s", "z"], ["logits"]),
        ],
        "int8",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    path = tmp_path / "int8.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(EnvironmentProblem, match=r"does not run on OpenVINO.*int8_conv") as caught:
        compare(path, path, provider="openvino", protocol=QUICK)
    assert caught.value.exit_code == 4
    assert len(check_placement(path, OPENVINO, allow_fallback=True)) == 1


def test_its_own_alignment_is_measured(tmp_path: Path) -> None:
    found = measure_alignment(
        provider=OPENVINO, widths=(6, 8, 16), size=4, min_time=0.001, repeats=1
    )
    assert found.provider == OPENVINO
    assert all(row.us > 0 for row in found.rows)


def test_compares_and_finds_the_smaller_one_faster(tmp_path: Path) -> None:
    row = compare(
        conv_file(tmp_path, 128), conv_file(tmp_path, 16), provider="openvino", protocol=QUICK
    )
    assert row.provider == OPENVINO
    assert row.ratio > 1.5
    assert row.fallback_nodes == ()

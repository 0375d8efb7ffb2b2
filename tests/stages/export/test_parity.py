"""Parity: a right file passes, a file wrong in one weight does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import small, small_proto
from onnx import numpy_helper

from pipeline.errors import Refused
from stages.export import check_parity
from stages.export.parity import compare_outputs

X = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(3))
with torch.no_grad():
    Y = small()(X).argmax(1)


def write(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_right_file_passes_at_every_batch(tmp_path: Path) -> None:
    report = check_parity(
        small(), write(tmp_path / "small.onnx", small_proto()), X, Y, batches=(1, 16)
    )
    assert report.passed
    assert report.require() is report
    assert [(row.batch, row.images) for row in report.rows] == [(1, 40), (16, 40)]
    assert report.top1_agreement == 1.0
    assert 0 < report.max_abs < 1e-4
    assert all(row.accuracy_torch == row.accuracy_onnx == 1.0 for row in report.rows)


def test_one_changed_weight_fails(tmp_path: Path) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(small_proto())
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "point.weight")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[5] += 0.05
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    report = check_parity(small(), write(tmp_path / "wrong.onnx", proto), X, Y)
    assert not report.passed
    with pytest.raises(Refused, match="out of tolerance") as caught:
        report.require()
    assert caught.value.exit_code == 1


def test_counts_disagreements_and_accuracy() -> None:
    reference = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 4.0]], np.float32)
    outputs = np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0], [1.0, 3.0]], np.float32)
    row = compare_outputs(reference, outputs, np.array([0, 0, 1, 0]))
    assert row.top1_agreement == 0.75
    assert (row.accuracy_torch, row.accuracy_onnx) == (0.75, 0.5)
    assert row.max_abs == 1.0
    assert row.max_rel == 0.5
    problems = row.problems(min_agreement=0.99, max_accuracy_drop=0.1, max_rel=1e-3)
    assert len(problems) == 3
    assert "another class on 1 of 4 images" in problems[0]
    assert not row.problems(min_agreement=0.75, max_accuracy_drop=0.25, max_rel=0.5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_never_in_tolerance(poison: float) -> None:
    reference = np.array([[2.0, 1.0]], np.float32)
    outputs = np.array([[2.0, poison]], np.float32)
    row = compare_outputs(reference, outputs, np.array([0]))
    assert np.isfinite([row.max_abs, row.max_rel, row.p99_rel]).all()
    assert row.problems(0.5, 1.0, max_rel=1e6)

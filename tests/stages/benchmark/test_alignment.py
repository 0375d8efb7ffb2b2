"""From a sweep to the channel multiple that pays."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from stages.benchmark.alignment import WIDTHS, WidthTime, alignment_of, measure_alignment
from stages.benchmark.probes import conv_chain


def blocked(block: int, penalty: float = 1.0) -> list[WidthTime]:
    """A machine that rounds widths up to `block`, and where widths off 4 leave the fast layout."""
    rows = []
    for kind, power in (("conv 3x3", 2), ("conv 1x1", 2), ("depthwise 3x3", 1)):
        for width in WIDTHS:
            padded = math.ceil(width / block) * block
            rows.append(
                WidthTime(kind, width, padded**power * (penalty if width % 4 else 1.0) / 100)
            )
    return rows


@pytest.mark.parametrize("block", [8, 16])
def test_finds_the_block(block: int) -> None:
    multiple, cost = alignment_of(blocked(block, penalty=3.0))
    assert multiple == block
    assert cost[2] > 2
    assert min(cost.values()) == 1.0


def test_a_machine_without_blocks_takes_any_width() -> None:
    assert alignment_of(blocked(1))[0] == 2  # the smallest multiple in the sweep


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_measures_every_kind_on_this_machine(precision: str) -> None:
    ticks: list[tuple[int, int]] = []
    found = measure_alignment(
        precision=precision,
        widths=(6, 8, 16),
        size=4,
        min_time=0.001,
        repeats=1,
        progress=lambda *tick: ticks.append(tick),
    )
    assert {(row.kind, row.channels) for row in found.rows} == {
        (kind, width) for kind in ("conv 3x3", "conv 1x1", "depthwise 3x3") for width in (6, 8, 16)
    }
    assert all(row.us > 0 for row in found.rows)
    assert found.multiple in found.cost
    assert found.precision == precision
    assert ticks[-1] == (18, 18)
    assert len(found.machine) == 16
    assert json.loads(json.dumps(found.to_dict()))["cost"]


@pytest.mark.parametrize("depthwise", [False, True])
def test_quantised_layers_run_as_integers_and_give_what_float_ones_give(
    tmp_path: Path, depthwise: bool
) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    x = np.random.default_rng(0).random((2, 16, 6, 6), dtype=np.float32)
    one, other = (
        ort.InferenceSession(conv_chain(16, 6, depthwise=depthwise, int8=int8), options).run(
            None, {"input": x}
        )[0]
        for int8 in (False, True)
    )
    np.testing.assert_allclose(other, one, atol=0.05)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    assert (operators["QLinearConv"], operators["Conv"]) == (4, 0)

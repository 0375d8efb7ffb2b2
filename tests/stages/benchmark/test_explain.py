"""Two files explained: layers side by side, operators summed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from bench_graphs import QUICK, conv_file, conv_node, other_node, profile_of

from stages.benchmark import compare, explain
from stages.benchmark.explain import explain_profiles
from stages.benchmark.protocol import Setting

module = importlib.import_module("stages.benchmark.explain")
BASE = profile_of(conv_node("c1", 100.0), conv_node("c2", 100.0))


def test_layers_side_by_side_and_by_operator() -> None:
    found = explain_profiles(
        BASE, profile_of(conv_node("c1", 40.0, 32), other_node("Add", 5.0)), Setting(), 100.0
    ).to_dict()
    rows = {row["layer"]: row for row in found["layers"]}
    assert rows["c1"]["a"]["channels_out"] == 64
    assert rows["c1"]["b"]["channels_out"] == 32
    assert rows["c2"]["b"] is None
    assert found["by_op"]["Conv (blocked)"] == {
        "a_us": 200.0,
        "a_nodes": 2,
        "b_us": 40.0,
        "b_nodes": 1,
    }
    assert json.dumps(found, allow_nan=False)


def test_explains_two_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measured_peak", lambda **setting: 40.0)
    a, b = conv_file(tmp_path, 32, size=8), conv_file(tmp_path, 30, size=8)
    found = explain(a, b, compare(a, b, protocol=QUICK)).to_dict()
    assert found["peak_gmacs_per_s"] == 40.0
    assert [row["b"]["channels_out"] for row in found["layers"]] == [30] * 4
    assert found["a"]["macs"] > found["b"]["macs"]

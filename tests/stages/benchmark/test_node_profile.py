"""A profile by layer: nodes that the runtime renamed and fused lead back to the file's layers."""

from __future__ import annotations

from pathlib import Path

from bench_graphs import conv_file

from pipeline.runtime import CPU
from stages.benchmark.node_profile import node_times, profile
from stages.benchmark.node_times import BLOCKED, PLAIN
from stages.benchmark.probes import conv_chain_macs
from stages.benchmark.protocol import Setting


def test_names_of_fused_and_blocked_nodes_lead_back_to_the_layer() -> None:
    layer = {
        "layer": "c1",
        "node": "n1",
        "values": ["v", "relu"],
        "in": 8,
        "out": 8,
        "group": 1,
        "macs": 640,
    }
    row = {
        "op": "Conv",
        "provider": CPU,
        "us": 3,
        "inputs": [[1, 8, 4, 4], [16, 8, 1, 1]],
        "outputs": [],
    }
    blocked = node_times([{**row, "name": "relu_nchwc"}], [layer], batch=2)[0]
    assert (blocked.layer, blocked.layout, blocked.macs, blocked.padded) == (
        "c1",
        BLOCKED,
        1280,
        1280,
    )
    plain = node_times([{**row, "name": "n1", "op": "FusedConv"}], [layer])[0]
    assert (plain.layer, plain.layout, plain.padded) == ("c1", PLAIN, 0)
    half = node_times([{**row, "name": "InsertedPrecisionFreeCast_v"}], [layer])[0]
    assert half.layer == "c1"
    (copy,) = node_times([{**row, "name": "ReorderInput", "op": "ReorderInput"}], [layer])
    assert copy.layer == ""


def test_layers_without_names_are_told_by_their_order_where_none_is_left_over() -> None:
    facts = {"node": "", "in": 8, "out": 8, "group": 1, "macs": 1}
    layers = [{**facts, "layer": name, "values": [name]} for name in ("a", "b", "c")]
    rows = [
        {"name": name, "op": op, "provider": CPU, "us": 1, "inputs": []}
        for name, op in (("Conv_3", "Conv"), ("b", "Conv"), ("Relu_1", "Relu"), ("Gemm_7", "Gemm"))
    ]
    assert [node.layer for node in node_times(rows, layers)] == ["a", "b", "", "c"]
    assert [node.layer for node in node_times(rows[:3], layers)] == ["", "b", ""]


def test_a_real_profile_finds_every_layer(tmp_path: Path) -> None:
    found = profile(conv_file(tmp_path, 24, size=8), Setting(batch=2), runs=6)
    assert {node.layer for node in found.convs} == {"w0", "w1", "w2", "w3"}
    assert found.macs == 2 * conv_chain_macs(24, 8)
    assert sum(node.macs for node in found.nodes) == found.macs
    assert found.us > 0

"""A profile by layer: nodes that the runtime renamed and fused lead back to the file's layers."""

from __future__ import annotations

from pathlib import Path

from bench_graphs import conv_file

from pipeline.runtime import CPU
from stages.benchmark.node_profile import node_time, profile
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
    names = {"n1": layer, "v": layer, "relu": layer}
    row = {
        "op": "Conv",
        "provider": CPU,
        "us": 3,
        "inputs": [[1, 8, 4, 4], [16, 8, 1, 1]],
        "outputs": [],
    }
    blocked = node_time({**row, "name": "relu_nchwc"}, names, batch=2)
    assert (blocked.layer, blocked.layout, blocked.macs, blocked.padded) == (
        "c1",
        BLOCKED,
        1280,
        1280,
    )
    plain = node_time({**row, "name": "n1", "op": "FusedConv"}, names)
    assert (plain.layer, plain.layout, plain.padded) == ("c1", PLAIN, 0)
    assert node_time({**row, "name": "ReorderInput", "op": "ReorderInput"}, names).layer == ""


def test_a_real_profile_finds_every_layer(tmp_path: Path) -> None:
    found = profile(conv_file(tmp_path, 24, size=8), Setting(batch=2), runs=6)
    assert {node.layer for node in found.convs} == {"w0", "w1", "w2", "w3"}
    assert found.macs == 2 * conv_chain_macs(24, 8)
    assert sum(node.macs for node in found.nodes) == found.macs
    assert found.us > 0

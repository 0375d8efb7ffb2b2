"""Why no gain: every cause from a made-up profile that has it, and none from one that has not."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from bench_graphs import QUICK, conv_file

from pipeline.runtime import CPU
from stages.benchmark import compare, explain
from stages.benchmark.explain import explain_profiles
from stages.benchmark.layers import BLOCKED, PLAIN, NodeTime, Profile, node_time, profile
from stages.benchmark.probes import conv_chain_macs
from stages.benchmark.protocol import Setting
from stages.benchmark.roofline import measured_peak

module = importlib.import_module("stages.benchmark.explain")


def conv(
    layer: str, us: float, channels: int = 64, layout: str = BLOCKED, **more: object
) -> NodeTime:
    facts = {"macs": int(us * 50_000), "group": 1, **more}
    return NodeTime(
        f"{layer}_node", "Conv", CPU, us, layer, channels, channels, layout=layout, **facts
    )  # type: ignore[arg-type]


def other(op: str, us: float, provider: str = CPU) -> NodeTime:
    return NodeTime(op.lower(), op, provider, us)


def run(*nodes: NodeTime, denormals: int = 0) -> Profile:
    return Profile(nodes, sum(node.macs for node in nodes), denormals)


BASE = run(conv("c1", 100.0), conv("c2", 100.0))


def causes(b: Profile, a: Profile = BASE, peak: float = 1e6) -> tuple[str, ...]:
    return explain_profiles(a, b, Setting(), peak).causes


def test_a_plain_good_cut_has_no_cause() -> None:
    assert causes(run(conv("c1", 40.0, 32), conv("c2", 40.0, 32))) == ()


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        (
            run(conv("c1", 90.0, 27, PLAIN), conv("c2", 30.0, 32)),
            "1 of 2 convolutions left.*75% of the time.*c1 (27",
        ),
        (
            run(conv("c1", 40.0, 24, padded=1_500_000), conv("c2", 40.0, 24)),
            "pads channels: 27% .* on zeros.*c1",
        ),
        (
            run(conv("c1", 40.0, 32), other("ReorderInput", 9), other("Transpose", 9)),
            "2 copies between memory layouts",
        ),
        (
            run(conv("c1", 40.0, 32), *[other("Add", 9.0) for _ in range(30)]),
            "30 of 31 nodes run for less than 10 µs",
        ),
        (run(conv("c1", 40.0, 32), other("Mul", 60.0)), "bound by memory.*Mul"),
        (run(conv("c1", 40.0, 32, group=32), conv("c2", 9.0, 32)), "bound by memory.*depthwise"),
        (run(conv("c1", 100.0), conv("c2", 20.0, 16)), "1 layers kept their width.*c1"),
        (run(conv("c1", 97.0, 60), conv("c2", 98.0, 62)), "only 3% of the multiply-accumulates"),
        (run(conv("c1", 40.0, 32), other("Conv", 10.0, "CPU2")), "1 nodes ran on CPU2"),
        (run(conv("c1", 40.0, 32), denormals=7), "7 denormal weights"),
    ],
)
def test_each_cause_has_its_sentence(profile: Profile, sentence: str) -> None:
    pattern = sentence.replace("(", r"\(")
    assert [cause for cause in causes(profile) if re.search(pattern, cause)], causes(profile)


def test_close_to_the_limit_is_a_number() -> None:
    found = causes(run(conv("c1", 40.0, 32)), peak=60.0)
    assert "50 of this machine's 60 GMAC/s" in found[0]


def test_the_weightiest_cause_comes_first() -> None:
    found = causes(
        run(conv("c1", 90.0, 27, PLAIN), conv("c2", 2.0, 32), other("ReorderInput", 15.0))
    )
    assert "left onnxruntime's" in found[0]
    assert "copies" in found[1]


def test_layers_side_by_side_and_by_operator() -> None:
    found = explain_profiles(
        BASE, run(conv("c1", 40.0, 32), other("Add", 5.0)), Setting(), 100.0
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


def test_the_peak_is_that_of_real_convolutions() -> None:
    assert (
        0.05 < measured_peak(min_time=0.002) < 10_000
    )  # GMAC/s, from a loaded small machine to a very large one


def test_a_real_profile_finds_every_layer(tmp_path: Path) -> None:
    found = profile(conv_file(tmp_path, 24, size=8), Setting(batch=2), runs=6)
    assert {node.layer for node in found.convs} == {"w0", "w1", "w2", "w3"}
    assert found.macs == 2 * conv_chain_macs(24, 8)
    assert sum(node.macs for node in found.nodes) == found.macs
    assert found.us > 0


def test_explains_two_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measured_peak", lambda **setting: 40.0)
    a, b = conv_file(tmp_path, 32, size=8), conv_file(tmp_path, 30, size=8)
    found = explain(a, b, compare(a, b, protocol=QUICK)).to_dict()
    assert found["peak_gmacs_per_s"] == 40.0
    assert [row["b"]["channels_out"] for row in found["layers"]] == [30] * 4
    assert found["a"]["macs"] > found["b"]["macs"]

"""Why INT8 does not pay: every cause from a made-up profile, and from a file that really has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from bench_graphs import conv_file, int8_file, other_node
from bench_graphs import conv_node as conv
from bench_graphs import profile_of as run

from stages.benchmark.causes import causes as causes_of
from stages.benchmark.evidence import Evidence
from stages.benchmark.node_profile import profile
from stages.benchmark.node_times import INT8, PLAIN, NodeTime, Profile
from stages.benchmark.probes import conv_chain_macs
from stages.benchmark.protocol import Setting

BASE = run(conv("c1", 100.0), conv("c2", 100.0))
U8S8 = {"activations": ("uint8",), "weights": ("int8",)}


def causes(b: Profile, **processor: bool) -> tuple[str, ...]:
    return causes_of(Evidence(BASE, b, Setting(), 1e6, **processor))


def int8(*nodes: NodeTime, **types: Any) -> Profile:
    return run(conv("c1", 50.0, layout=INT8), *nodes, **{**U8S8, **types})


def test_int8_of_the_same_network_needs_no_fewer_multiplications() -> None:
    assert causes(int8(conv("c2", 50.0, layout=INT8))) == ()


def test_float_against_int8_is_said_first() -> None:
    found = causes_of(Evidence(int8(), BASE, Setting(), 1e6))
    assert found[0] == "it computes in float32, and the base in INT8"


@pytest.mark.parametrize(
    ("found", "processor", "sentence"),
    [
        (int8(conv("c2", 50.0, layout=PLAIN)), {}, "1 of 2 layers stayed float32.*50%.*c2"),
        (
            int8(other_node("QuantizeLinear", 10.0), other_node("DequantizeLinear", 10.0)),
            {},
            "2 QuantizeLinear and DequantizeLinear nodes fused with no neighbour.*29%",
        ),
        (
            int8(other_node("Sigmoid", 30.0), other_node("Mul", 20.0)),
            {},
            "2 nodes without weights compute in float32 \\(Sigmoid, Mul\\) and take 50%",
        ),
        (
            int8(other_node("DynamicQuantizeLinear", 30.0), other_node("Mul", 20.0)),
            {},
            "quantised dynamically: 1 activation is.*50% of the time.*rlp quantize",
        ),
        (int8(activations=("int8",)), {}, "activations are int8 \\(S8S8\\)"),
        (int8(weights=("uint8",)), {}, "weights are uint8 \\(U8U8\\)"),
        (int8(), {"dot_product": False}, "no VNNI.*100% of the time"),
        (int8(seven_bits=True), {"dot_product": False}, "7 of their 8 bits.*costs accuracy"),
        (int8(seven_bits=True), {}, "7 of their 8 bits.*does not need"),
    ],
)
def test_each_cause_has_its_sentence(
    found: Profile, processor: dict[str, bool], sentence: str
) -> None:
    said = causes(found, **processor)
    assert [cause for cause in said if re.search(sentence, cause)], said


def test_what_does_not_apply_here_is_not_said() -> None:
    assert causes(int8(activations=("int8",)), x86=False) == ()
    assert causes(int8(weights=("uint8",)), x86=False) == ()
    few = int8(conv("c2", 4.0, layout=PLAIN), other_node("QuantizeLinear", 1.0))
    assert causes(few) == (), "below a tenth of the time nothing is worth a sentence"


def test_layers_of_an_int8_file_are_those_of_its_float_file(tmp_path: Path) -> None:
    float_file = conv_file(tmp_path, 8, size=8)
    path = int8_file(float_file, 8, reduce_range=True, nodes_to_quantize=["conv0", "conv1"])
    found = profile(path, Setting(batch=2), runs=6)
    assert {node.layer for node in found.convs} == {"w0", "w1", "w2", "w3"}
    assert [node.layer for node in found.convs if not node.integer] == ["w2", "w3"]
    assert sum(node.macs for node in found.nodes) == 2 * conv_chain_macs(8, 8) == found.macs
    assert (found.activations, found.weights, found.seven_bits) == (("uint8",), ("int8",), True)
    assert found.quantised


def test_eight_bits_and_signed_activations_are_read_off_the_file(tmp_path: Path) -> None:
    float_file = conv_file(tmp_path, 8, size=8, repeat=1)
    found = profile(int8_file(float_file, 8, "int8"), Setting(), runs=4)
    assert (found.activations, found.seven_bits) == (("int8",), False)
    plain = profile(float_file, Setting(), runs=4)
    assert not plain.quantised
    assert (plain.activations, plain.weights, plain.seven_bits) == ((), (), False)

"""Why no gain: every cause from a made-up profile that has it, and none from one that has not."""

from __future__ import annotations

import re

import pytest
from bench_graphs import conv_node as conv
from bench_graphs import other_node as other
from bench_graphs import profile_of as run

from pipeline.runtime import CPU
from stages.benchmark.causes import causes as causes_of
from stages.benchmark.evidence import Evidence
from stages.benchmark.node_times import PLAIN, NodeTime, Profile
from stages.benchmark.protocol import Setting


def cast(name: str, us: float) -> NodeTime:
    return NodeTime(name, "Cast", CPU, us)


BASE = run(conv("c1", 100.0), conv("c2", 100.0))


def causes(b: Profile, a: Profile = BASE, peak: float = 1e6) -> tuple[str, ...]:
    return causes_of(Evidence(a, b, Setting(), peak))


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
        (run(conv("c1", 100.0), conv("c2", 20.0, 16)), "1 layer kept its width and takes.*c1"),
        (run(conv("c1", 97.0, 60), conv("c2", 98.0, 62)), "only 3% of the multiply-accumulates"),
        (run(conv("c1", 40.0, 32), other("Conv", 10.0, "CPU2")), "1 node ran on CPU2"),
        (run(conv("c1", 40.0, 32), denormals=7), "7 denormal weights"),
        (run(conv("c1", 190.0), weights_as_inputs=3), "3 weights are also a graph input"),
        (
            run(conv("c1", 40.0, 32), cast("InsertedPrecisionFreeCast_x", 10.0), halves=True),
            "computes it in float32.*1 Cast node takes 20% of the time",
        ),
        (run(conv("c1", 300.0)), "1.50 times the base's multiply-accumulates"),
        (run(conv("c1", 200.0)), "none of the multiply-accumulates were removed"),
    ],
)
def test_each_cause_has_its_sentence(profile: Profile, sentence: str) -> None:
    pattern = sentence.replace("(", r"\(")
    assert [cause for cause in causes(profile) if re.search(pattern, cause)], causes(profile)


def test_close_to_the_limit_is_a_number() -> None:
    found = causes(run(conv("c1", 40.0, 32)), peak=60.0)
    assert "50 of this machine's 60 GMAC/s" in found[0]


def test_a_rate_above_the_peak_shows_a_busy_machine_and_is_no_cause() -> None:
    assert causes(run(conv("c1", 40.0, 32)), peak=40.0) == ()


def test_a_layer_of_the_same_width_did_not_leave_its_layout_because_of_it() -> None:
    found = causes(run(conv("c1", 100.0, layout=PLAIN), conv("c2", 40.0, 32)))
    assert not [cause for cause in found if "because of their channel counts" in cause]


def test_casts_of_the_files_own_are_those_of_the_converter_and_not_of_the_provider() -> None:
    found = causes(run(conv("c1", 40.0, 32), cast("cast", 10.0), halves=True))
    assert not [cause for cause in found if "computes it in float32" in cause]
    (said,) = [cause for cause in found if "float16" in cause]
    assert said.startswith("1 conversion between float16 and float32 takes 20% of the time")
    assert "quantize.fp16_keep" in said
    found = causes(run(conv("c1", 40.0, 32), cast("cast", 10.0)))
    assert not [cause for cause in found if "float16" in cause]  # of a float32 file


def test_the_weightiest_cause_comes_first() -> None:
    found = causes(
        run(conv("c1", 90.0, 27, PLAIN), conv("c2", 2.0, 32), other("ReorderInput", 15.0))
    )
    assert "left onnxruntime's" in found[0]
    assert "1 copy between memory layouts takes" in found[1]


def test_fp16_is_not_said_to_have_cut_nothing() -> None:
    same = run(conv("c1", 100.0), conv("c2", 100.0), halves=True)
    assert causes(same) == ()
    assert any("none of the multiply" in cause for cause in causes(same, a=same))
    assert any("none of the multiply" in cause for cause in causes(BASE))

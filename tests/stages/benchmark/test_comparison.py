"""Real timings: what is eight times the work is slower; one row has all that the contract names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from bench_graphs import QUICK, conv_file
from onnx import numpy_helper

from pipeline.errors import ArtifactError, EnvironmentProblem
from stages.benchmark import Protocol, Setting, compare, compare_settings, comparison, time_files
from stages.benchmark import protocol as protocol_module
from stages.benchmark.probes import conv_chain_macs


def test_a_network_with_a_sixtieth_of_the_work_is_faster(tmp_path: Path) -> None:
    a, b = conv_file(tmp_path, 96, size=8), conv_file(tmp_path, 12, size=8)
    protocol = replace(QUICK, min_seconds=0.05, limit_seconds=600)
    ticks: list[tuple[int, int]] = []
    found = compare_settings(
        a,
        b,
        [Setting(), Setting(batch=4, threads=0, static_batch=True)],
        protocol=protocol,
        progress=lambda *tick: ticks.append(tick),
    )
    assert ticks == [(done, 4) for done in range(1, 5)]
    # On a starved machine the verdict may honestly be "no difference shown".
    assert found[0].ratio > 1.5
    assert found[0].verdict != "slower"
    assert [(row.batch, row.threads > 0, row.static_batch) for row in found] == [
        (1, True, False),
        (4, True, True),
    ]
    for row in found:
        assert row.ci95[0] <= row.ratio <= row.ci95[1]
        assert row.aa_ci95[0] <= row.aa_ratio <= row.aa_ci95[1]
        assert row.rounds >= protocol.min_rounds * protocol.launches
        assert row.a.runs >= QUICK.min_runs
    first = json.loads(json.dumps(found[0].to_dict(), allow_nan=False))
    assert {"provider", "batch", "threads", "verdict", "ratio", "ci95", "aa_ci95", "a", "b"} <= set(
        first
    )
    assert first["a"]["sha256"] == hashlib.sha256(a.read_bytes()).hexdigest()
    assert first["b"]["latency_ms"]["p50"] < first["a"]["latency_ms"]["p50"]
    assert first["cores"]


def test_files_that_share_their_rounds_compare_with_each_other(tmp_path: Path) -> None:
    widths = (96, 16, 32)
    files = [conv_file(tmp_path, width, size=12) for width in widths]
    timed = time_files(files, [Setting(), Setting(batch=2)], protocol=replace(QUICK, further=0.5))
    first, second = (timed.between(0, other) for other in (1, 2))
    assert [row.a.file for row in (*first, *second)] == [str(files[0])] * 4
    assert first[0].aa_ratio == second[0].aa_ratio, "one control serves them all"
    assert first[0].rounds == second[0].rounds
    direct = timed.between(2, 1)[0]  # the narrow one against the one in between
    assert direct.ratio == pytest.approx(first[0].ratio / second[0].ratio, rel=0.3)
    assert (direct.a, direct.b) == (second[0].b, first[0].b)
    assert [fact["macs"] for fact in timed.facts] == [
        conv_chain_macs(width, 12, repeat=4) for width in widths
    ]


def test_every_process_leads_and_is_visited_there_and_back_equally_often() -> None:
    for count in (3, 5):
        orders = [protocol_module._there_and_back(count, round_) for round_ in range(count)]
        assert sorted(order[0] for order in orders) == list(range(count))
        for order in orders:
            assert order == order[::-1]
            assert sorted(order) == sorted([*range(count)] * 2)


def test_settings_after_the_first_get_their_share() -> None:
    whole = Protocol(min_seconds=2.0, min_runs=101, further=0.5)
    assert whole.at(0) == whole
    later = whole.at(3)
    assert (later.min_seconds, later.min_runs, later.launches) == (1.0, 51, whole.launches)


def test_denormal_weights_are_found_and_both_timings_shown(tmp_path: Path) -> None:
    proto = onnx.load_from_string(conv_file(tmp_path, 16, size=8).read_bytes())
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("w"):
            values = numpy_helper.to_array(tensor) * np.float32(1e-39)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    slow = tmp_path / "denormal.onnx"
    slow.write_bytes(proto.SerializeToString())
    row = compare(slow, conv_file(tmp_path, 16), protocol=QUICK)
    assert row.a.denormal_weights > 1000
    assert row.b.denormal_weights == 0
    assert row.flushed is not None
    assert set(row.flushed) == {"verdict", "ratio", "ci95", "a_p50_ms", "b_p50_ms"}
    assert min(row.flushed["a_p50_ms"], row.flushed["b_p50_ms"]) > 0


def test_a_file_that_is_none_is_exit_3(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ArtifactError, match=r"bad\.onnx"):
        compare(conv_file(tmp_path, 16), bad, protocol=QUICK)
    with pytest.raises(ArtifactError, match="missing"):
        compare(conv_file(tmp_path, 16), tmp_path / "missing.onnx", protocol=QUICK)


def test_an_absent_provider_is_exit_4(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="onnxruntime has no Tensorrt") as caught:
        compare(
            conv_file(tmp_path, 16), conv_file(tmp_path, 32), provider="tensorrt", protocol=QUICK
        )
    assert "pip install onnxruntime-gpu" in caught.value.hint


@pytest.mark.parametrize("name", ["launches", "min_rounds"])
def test_what_gives_no_spread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Protocol(**{name: 1})


def test_what_progress_raises_ends_the_measurement(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    a = conv_file(tmp_path, 16)
    with pytest.raises(KeyboardInterrupt):
        compare(a, a, protocol=QUICK, progress=stop)


def test_compare_checks_placement_of_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def check(path: Path, *rest: object) -> list[str]:
        asked.append(path.name)
        raise EnvironmentProblem("fell back")

    monkeypatch.setattr(comparison, "check_placement", check)
    monkeypatch.setattr(comparison, "require_provider", lambda worker, provider: None)
    with pytest.raises(EnvironmentProblem, match="fell back"):
        compare(conv_file(tmp_path, 16), conv_file(tmp_path, 32), provider="cuda", protocol=QUICK)
    assert asked == ["conv16.onnx"]

"""`rlp bench` on real files, and `rlp doctor --target` with a timer that takes no time."""

from __future__ import annotations

import importlib
from pathlib import Path

import fake_run
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.runtime import PROVIDERS, Worker
from stages.benchmark import (
    Alignment,
    Protocol,
    alignment_cache,
    cached_alignment,
    measure_alignment,
)
from stages.benchmark.probes import conv_chain


def conv_file(path: Path, channels: int, scale: float = 1.0) -> Path:
    """Two 3×3 convolutions whose weights are multiplied by `scale`."""
    proto = onnx.load_from_string(conv_chain(channels, 8, repeat=2))
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("w"):
            values = numpy_helper.to_array(tensor) * np.float32(scale)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings too short to be believed, and a peak that is not measured."""
    short = Protocol(
        min_seconds=0.02, min_runs=6, launches=2, slot_seconds=0.002, min_rounds=2, warm_limit=0.02
    )
    monkeypatch.setattr("stages.benchmark.protocol.Protocol", lambda **given: short)
    explaining = importlib.import_module("stages.benchmark.explain")
    monkeypatch.setattr(explaining, "measured_peak", lambda **setting: 50.0)


def test_several_files_against_the_first_denormals_and_why_one_is_not_faster(
    rlp: fake_run.Rlp, tmp_path: Path, quick: None
) -> None:
    base, tiny = (
        conv_file(tmp_path / "base.onnx", 64),
        conv_file(tmp_path / "tiny.onnx", 64, scale=1e-39),
    )
    small = conv_file(tmp_path / "small.onnx", 8)
    options = ("--allow-different", "--json")  # as wide as their channels, these answer differently
    result = rlp("bench", base, tiny, small, *options)
    document = result.json()
    rows = document["settings"]
    assert [Path(row["b"]["file"]).name for row in rows] == ["tiny.onnx", "small.onnx"]
    assert {row["launches"] for row in rows} == {2}, "these are not the quick timings"
    assert rows[1]["ratio"] > 1.2
    slow = [row["b"]["file"] for row in rows if row["verdict"] != "faster"]
    assert [item["file"] for item in document["why"]] == slow
    assert str(tmp_path / "tiny.onnx") in slow
    for item in document["why"]:
        assert item["b"]["gmacs_per_s"] > 0
        assert item["peak_gmacs_per_s"] == 50.0
    assert "denormal weights slow" in " ".join(document["why"][0]["causes"])
    (line,) = [
        line for line in result.err.splitlines() if line.startswith("warning: denormal weights")
    ]
    count = sum(
        np.count_nonzero(numpy_helper.to_array(t)) for t in onnx.load(tiny).graph.initializer
    )
    assert f"{count:,} in tiny.onnx" in line
    assert line.count("ms as it is") == line.count("ms flushed") == 2


def test_one_file_alone_at_several_batches(rlp: fake_run.Rlp, tmp_path: Path, quick: None) -> None:
    file = conv_file(tmp_path / "a.onnx", 8)
    result = rlp("bench", file, "--batch", "1,4", "--json")
    document = result.json()
    assert (document["settings"], document["refused"], document["why"]) == ([], [], [])
    assert [row["batch"] for row in document["files"]] == [1, 4]
    for row in document["files"]:
        assert row["inputs"] == {"input": {"type": "float32", "shape": [row["batch"], 8, 8, 8]}}
        assert row["latency_ms"]["p50"] > 0
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["latency_ms"]["p50"])
        assert row["memory_bytes"] > 0
    assert "fed input float32 4×8×8×8: a.onnx" in result.err
    assert "takes about" in result.err


def test_a_busy_machine_is_said_beside_the_verdict_with_the_command_to_repeat(
    rlp: fake_run.Rlp, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparing = importlib.import_module("stages.benchmark.comparison")
    monkeypatch.setattr(comparing, "doubts", lambda *given: ("the warm-up did not settle",))
    file = conv_file(tmp_path / "a.onnx", 8)
    (line,) = [
        line
        for line in rlp("bench", file, file, "--shape", "8x8x8").out.splitlines()
        if "a.onnx against a.onnx" in line
    ]
    again = f"repeat with rlp bench {file} {file} --shape 8x8x8 --min-seconds 8"
    assert line.endswith(f"; the machine was busy: the warm-up did not settle; {again}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch", "1,0"), "--batch 0: expected a whole number from 1 on"),
        (("--batch", "two"), "two is not a whole number"),
        (("--shape", "3xwide"), "--shape 3xwide: expected sizes"),
        (("--shape", "x="), "--shape x=: expected sizes"),
        (("--shape", "9" * 5000), "expected sizes"),
        (("--shape", "9x8x8"), "--shape 9x8x8: the files take float32 1×8×8×8"),
    ],
)
def test_options_of_bench_that_mean_nothing_are_exit_2(
    rlp: fake_run.Rlp, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = rlp("bench", conv_file(tmp_path / "a.onnx", 8), *options)
    assert result.code == 2
    assert words in result.lines("error")[0]


@pytest.mark.parametrize(
    "provider", [p for p in PROVIDERS if p.short != "cpu"], ids=lambda p: p.short
)
def test_an_absent_provider_is_exit_4_naming_the_package_that_brings_it(
    rlp: fake_run.Rlp, tmp_path: Path, provider: object
) -> None:
    with Worker() as worker:
        if provider.name in worker.hello()["available"]:  # type: ignore[attr-defined]
            pytest.skip(f"this onnxruntime has {provider.name}")  # type: ignore[attr-defined]
    file = conv_file(tmp_path / "a.onnx", 8)
    result = rlp("bench", file, file, "--provider", provider.short)  # type: ignore[attr-defined]
    assert result.code == 4
    assert provider.name in result.lines("error")[0]  # type: ignore[attr-defined]
    assert provider.package in result.lines("hint")[0]  # type: ignore[attr-defined]


def test_doctor_measures_the_target_once(
    rlp: fake_run.Rlp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def blocks_of_16(**setting: object) -> Alignment:
        def seconds(graph: bytes) -> float:
            channels = onnx.load_from_string(graph).graph.initializer[0].dims[0]
            return 1e-9 * (-(-channels // 16) * 16) ** 2

        return measure_alignment(**setting, timer=seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(
        alignment_cache,
        "cached_alignment",
        lambda **given: cached_alignment(**given, measure=blocks_of_16),
    )
    assert rlp("doctor", "--json").json()["alignment"] is None
    first = rlp("doctor", "--target")
    assert first.code == 0
    assert "should be multiples of 16 here in fp32" in first.out
    assert "search.align=16" in first.out
    assert "about five seconds" in first.err
    again = rlp("doctor", "--target", "--json").json()["alignment"]
    assert (again["multiple"], again["known"]) == (16, True)
    assert rlp("doctor", "--target", "--refresh", "--json").json()["alignment"]["known"] is False
    quantised = rlp("doctor", "--target", "--precision", "int8", "--json").json()["alignment"]
    assert (quantised["precision"], quantised["known"]) == ("int8", False)
    assert rlp("doctor", "--target", "--precision", "int4").code == 2


def test_against_belongs_to_the_benchmark(rlp: fake_run.Rlp) -> None:
    result = rlp("stage", "search", "--run", "nowhere", "--against", "a.onnx")
    assert result.code == 2
    assert "--against" in result.lines("error")[0]

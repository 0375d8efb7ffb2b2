"""quantize_onnx on small files: what it writes, what it refuses, and that files stay."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from quantize_nets import Clock, images, labelled, made_up_clock, quadrants

from pipeline.errors import ArtifactError, Refused
from pipeline.run.store import sha256_file
from pipeline.runtime.quantizer import QuantizedGraph, Quantizer
from stages.benchmark import Protocol
from stages.quantize import (
    Allowance,
    ArrayImages,
    QuantizeReport,
    Scheme,
    engine,
    quantize_onnx,
)
from stages.quantize.report import Timing

BRIEF = Protocol(min_seconds=0.1, min_runs=20, launches=2)
SETTINGS = {"images": 64, "search_images": 96, "protocol": BRIEF}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    return made_up_clock(monkeypatch)


def made(path: Path, **settings: object) -> tuple[QuantizeReport, Path]:
    out = path.with_name("out.onnx")
    how = {"calibration": labelled(64, 1), "search": labelled(), **SETTINGS, **settings}
    return quantize_onnx(path, out, **how), out  # type: ignore[arg-type]


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[QuantizeReport, Path, str]:
    """A report with real timings, the float file, and its hash before."""
    path = quadrants(tmp_path_factory.mktemp("measured") / "net.onnx")
    before = sha256_file(path)
    return made(path)[0], path, before


def test_the_file_says_what_fp32_says_and_fp32_stays(
    measured: tuple[QuantizeReport, Path, str],
) -> None:
    report, path, before = measured
    out = path.with_name("out.onnx")
    x = images(64, seed=3)
    assert sha256_file(path) == before
    assert report.file["sha256"] == sha256_file(out)
    assert (outputs(out, x).argmax(1) == outputs(path, x).argmax(1)).all()
    assert 0 < np.abs(outputs(out, x) - outputs(path, x)).max() < 0.1
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators(out))


def test_the_report_holds_what_was_measured(measured: tuple[QuantizeReport, Path, str]) -> None:
    document = measured[0].to_dict()
    assert document["accuracy"]["fp32"] == 1.0
    assert document["accuracy"]["int8"] == 1.0
    assert document["accuracy"]["images"] == 96
    low, high = document["speed"]["ci95"]
    assert low <= document["speed"]["ratio"] <= high
    assert document["chosen"] == ("int8" if low > 1 else "fp32")
    schemes = {row["scheme"]["name"] for row in document["tried"] if row["ratio"]}
    assert schemes == {"U8S8", "U8U8", "S8S8"}
    calibrators = {row["scheme"]["calibrator"] for row in document["tried"] if row["images"]}
    assert {"minmax", "percentile 99.9", "percentile 99.99", "percentile 99.999"} <= calibrators
    assert document["calibration"]["images"] == 64
    assert "Sub" in [name.partition("_")[0] for name in document["float_nodes"]]


def test_auto_says_why_fp32_is_delivered(tmp_path: Path, clock: type[Clock]) -> None:
    clock.ratio = 0.7
    report, out = made(quadrants(tmp_path / "net.onnx"))
    assert report.chosen == "fp32"
    assert "slower" in report.reason
    assert out.is_file()  # INT8 alone is a row of the benchmark all the same


@pytest.mark.usefixtures("clock")
def test_beyond_the_allowance_auto_delivers_fp32_and_int8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SCHEMES", engine.SCHEMES[:1])
    path = quadrants(tmp_path / "net.onnx")
    tight = Allowance(output_error=1e-6)
    report, _ = made(path, allowance=tight)
    assert report.chosen == "fp32"
    assert "off by" in report.reason
    assert {row.scheme.calibrator for row in report.tried} >= {"entropy"}  # the last resorts
    assert {row.scheme.per_channel for row in report.tried} == {True, False}
    (tmp_path / "out.onnx").unlink()
    with pytest.raises(Refused, match="off by") as refused:
        made(path, allowance=tight, mode="int8")
    assert "quantize.mode=auto" in refused.value.hint
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.usefixtures("clock")
def test_without_labels_agreement_with_fp32_decides(tmp_path: Path) -> None:
    report, _ = made(quadrants(tmp_path / "net.onnx"), search=None)
    assert report.chosen == "int8"
    assert report.to_dict()["accuracy"]["int8"] is None
    assert report.to_dict()["parity"]["top1_agreement"] == 1


@pytest.mark.usefixtures("clock")
def test_one_image_is_enough_to_calibrate_and_none_is_an_error(tmp_path: Path) -> None:
    path = quadrants(tmp_path / "net.onnx")
    assert made(path, calibration=labelled(1))[0].calibration["images"] == 1
    with pytest.raises(ArtifactError, match="no images to calibrate"):
        made(path, calibration=ArrayImages(images(1)[:0]))


@pytest.mark.usefixtures("clock")
def test_a_batch_that_is_fixed_in_the_graph_is_kept(tmp_path: Path) -> None:
    report, out = made(quadrants(tmp_path / "net.onnx", batch=5))
    assert report.calibration == {
        "images": 60,
        "batch": 5,
        "bytes_per_image": report.calibration["bytes_per_image"],
        "infinite": [],
    }
    assert report.best is not None
    assert report.best.score is not None
    assert report.best.score.images == 96
    assert outputs(out, images(5)).shape == (5, 4)


def nodes(kind: str) -> list[onnx.NodeProto]:
    """From `features` to `altered`, by way of an operator without an INT8 kernel."""
    return {
        "softplus": [helper.make_node("Softplus", ["features"], ["altered"])],
        "infinite": [
            helper.make_node("Add", ["features", "mask"], ["masked"]),
            helper.make_node("Max", ["masked", "features"], ["altered"]),
        ],
    }[kind]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("kind", "left"),
    [("softplus", "Softplus"), ("infinite", "Add")],
)
def test_what_cannot_be_int8_stays_float_and_the_rest_is_quantised(
    tmp_path: Path, kind: str, left: str
) -> None:
    mask = np.where(np.arange(8) == 3, -np.inf, 0).astype(np.float32).reshape(8, 1, 1)
    used = {"mask": mask} if kind == "infinite" else {}
    report, out = made(quadrants(tmp_path / "net.onnx", nodes(kind), constants=used))
    assert report.chosen == "int8"
    assert left in operators(out)
    assert any(left in name for name in report.float_nodes)
    assert operators(out).count("QuantizeLinear") >= 3
    assert bool(report.calibration["infinite"]) is (kind == "infinite")


@pytest.mark.usefixtures("clock")
def test_a_network_of_no_numbers_is_delivered_as_it_is(tmp_path: Path) -> None:
    weight = np.full((8, 8, 1, 1), np.nan, np.float32)
    report, _ = made(
        quadrants(
            tmp_path / "net.onnx",
            [helper.make_node("Conv", ["features", "nan"], ["altered"])],
            constants={"nan": weight},
        )
    )
    assert report.chosen == "fp32"
    assert report.reason


@pytest.mark.usefixtures("clock")
def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ArtifactError, match="PNG image"):
        made(tmp_path / "net.onnx")


@pytest.mark.usefixtures("clock")
def test_a_child_killed_in_calibration_leaves_nothing_and_another_try_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quadrants(tmp_path / "net.onnx")
    expected = made(path)[0].file["sha256"]
    (tmp_path / "out.onnx").unlink()

    def killed(self: Quantizer, x: np.ndarray) -> None:
        os.kill(self.pid, signal.SIGKILL)
        observe(self, x)

    observe = Quantizer.observe
    monkeypatch.setattr(Quantizer, "observe", killed)
    with pytest.raises(ArtifactError, match="SIGKILL"):
        made(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx"]
    monkeypatch.setattr(Quantizer, "observe", observe)
    assert made(path)[0].file["sha256"] == expected


def test_what_begins_is_told(tmp_path: Path, clock: type[Clock]) -> None:
    begun: list[str] = []
    made(quadrants(tmp_path / "net.onnx"), progress=begun.append)
    assert begun[:2] == ["preparing net.onnx", "timing the schemes"]
    assert begun[2:4] == ["fp32 on at most 96 images", "calibrating"]
    kept: Sequence[str] = [what for what in begun if what.startswith("trying")]
    assert len(kept) == 4


@pytest.mark.parametrize(
    ("ratios", "first"),
    [((1.50, 1.55, 1.0, 1.2), "U8S8"), ((1.2, 1.55, 1.0, 1.2), "U8U8"), ((0.5, 0.6, 0.9), "S8S8")],
)
def test_the_fastest_scheme_comes_first_and_among_equals_the_preferred_one(
    ratios: tuple[float, ...], first: str
) -> None:
    class Bench:
        def tell(self, what: str) -> None: ...

        def sketch(self, scheme: Scheme) -> QuantizedGraph:
            return QuantizedGraph(str(scheme).encode(), (), ())

        def look(self, models: Sequence[bytes]) -> list[Timing]:
            return [Timing(ratio) for ratio in ratios]

    schemes = engine.SCHEMES[: len(ratios)]
    found = engine.speeds_of_schemes(Bench(), schemes)  # type: ignore[arg-type]
    assert found[0].tried.scheme.name == first
    assert len(found) == len(ratios)

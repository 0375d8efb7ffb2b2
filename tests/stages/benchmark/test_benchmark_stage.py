"""The stage: timings, test accuracy and costs of the very files whose parity was checked."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bench_graphs import conv_file, int8_file
from made_up_times import made_up_times
from onnx import helper, numpy_helper

import stages.benchmark.stage as module
from pipeline.config.schema import BenchmarkConfig, Config, ModelConfig
from pipeline.data import Images
from pipeline.errors import ArtifactError, EnvironmentProblem, Interrupted
from pipeline.models import build_model, save_model
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.runtime import CPU
from pipeline.runtime.quantizer import Quantizer
from stages import declared
from stages.benchmark import comparison
from stages.benchmark.accuracy import Named, accuracy_change, onnx_accuracy
from stages.benchmark.alignment import Alignment, WidthTime, alignment_of
from stages.benchmark.stage import setting_list

explaining = importlib.import_module("stages.benchmark.explain")
SETTINGS = {"batches": (1,), "threads": (1,), "min_seconds": 0.05, "min_runs": 5, "launches": 2}


def brightest_quadrant(path: Path) -> Path:
    """A classifier without training: the class is the brightest of four quadrants of (1, 8, 8)."""
    weight = np.full((1, 1, 4, 4), 1 / 16, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "conv.weight"], ["means"], strides=[4, 4]),
            helper.make_node("Flatten", ["means"], ["logits"]),
        ],
        "quadrants",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


def quadrants(wrong: int = 3) -> Images:
    """12 images, of which `wrong` carry another label than their brightest quadrant."""
    pixels = torch.zeros(12, 8, 8, 1, dtype=torch.uint8)
    for index in range(12):
        row, column = divmod(index % 4, 2)
        pixels[index, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 200
    labels = torch.arange(12) % 4
    labels[:wrong] = (labels[:wrong] + 1) % 4
    return Images(pixels, labels, ("a", "b", "c", "d"), (0.4,), (0.2,))


def blocks_of_16() -> Alignment:
    rows = tuple(
        WidthTime("conv 3x3", width, float(-(-width // 16)) ** 2) for width in (20, 24, 32, 48)
    )
    return Alignment(*alignment_of(rows), rows, CPU, 1, "0123456789abcdef")


def decide(folder: Path, chosen: str, final: str = "", base: str = "") -> None:
    """A quantize.json, with the sha256 of both INT8 files."""
    facts = {"chosen": chosen, "reason": "INT8 is [no] faster here", "tried": []}
    sides = {"file": {"sha256": final}, "base": {**facts, "file": {"sha256": base}}}
    document("quantization").write(folder / "quantize.json", {"mode": "auto", **facts, **sides})


@pytest.fixture
def with_int8(ctx: StageContext, tmp_path: Path) -> StageContext:
    """The same with INT8 files of both, of which the final one is delivered."""
    made = {}
    for kind, name in (("onnx_int8", "model_int8.onnx"), ("base_onnx_int8", "base_int8.onnx")):
        source = tmp_path / "export" / name.replace("_int8", "")
        path = int8_file(source, 1).rename(tmp_path / "quantize" / name)
        made[kind] = sha256_file(path)
        ctx.inputs = {**ctx.inputs, kind: (path.parent, {name: made[kind]})}
    decide(tmp_path / "quantize", "int8", made["onnx_int8"], made["base_onnx_int8"])
    return ctx


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    for name in ("export", "base", "final", "out", "work"):
        (tmp_path / name).mkdir()
    base, final = (
        brightest_quadrant(tmp_path / "export" / name) for name in ("base.onnx", "model.onnx")
    )
    sides = {"base": {"sha256": sha256_file(base)}, "final": {"sha256": sha256_file(final)}}
    document("parity").write(tmp_path / "export" / "parity.json", {"images": 12, **sides})
    for role, width in (("base", 0.5), ("final", 0.25)):
        source = ModelConfig(source="mobilenet_v2", kwargs={"width_mult": width})
        save_model(build_model(source, in_channels=1, num_classes=4), tmp_path / role)
    (tmp_path / "quantize").mkdir()
    decide(tmp_path / "quantize", "fp32")
    monkeypatch.setattr(explaining, "measured_peak", lambda **setting: 10.0)
    monkeypatch.setattr(module, "load_test", lambda config: quadrants())
    monkeypatch.setattr(module, "cached_alignment", lambda **setting: (blocks_of_16(), True))
    export = (tmp_path / "export", {})
    inputs = dict.fromkeys(("onnx", "base_onnx", "parity"), export)
    inputs |= {
        "base_model": (tmp_path / "base", {}),
        "final_model": (tmp_path / "final", {}),
        "data": export,
        "quantization": (tmp_path / "quantize", {}),
        "onnx_int8": (tmp_path / "quantize", {}),
        "base_onnx_int8": (tmp_path / "quantize", {}),
        "onnx_fp16": (tmp_path / "quantize", {}),
        "base_onnx_fp16": (tmp_path / "quantize", {}),
    }
    return StageContext(Config(benchmark=SETTINGS), tmp_path / "out", tmp_path / "work", inputs)


def test_times_and_scores_both_files(ctx: StageContext) -> None:
    result = module.run(ctx)
    found = json.loads((ctx.out / "benchmark.json").read_text())
    assert [path.name for path in ctx.out.iterdir()] == ["benchmark.json"]
    assert found["data"]["test_images"] == 12
    assert (
        result["base_accuracy"] == found["base"]["accuracy"] == found["final"]["accuracy"] == 0.75
    )
    assert found["base"]["macs"] == found["final"]["macs"] == 64
    assert found["base"]["params"] > found["final"]["params"] > 0
    assert found["base"]["sha256"] == found["settings"][0]["a"]["sha256"]
    assert found["final"]["latency_ms"] == found["settings"][0]["b"]["latency_ms"]
    assert [found["settings"][0][side]["file"] for side in "ab"] == ["base.onnx", "model.onnx"]
    assert found["machine"]["id"]
    assert "causes" in found["why"]
    assert found["alignment"]["multiple"] == 16
    assert found["against"] == []
    assert found["base"]["near_chance"] is False
    assert [row["name"] for row in found["variants"]] == ["base", "final"]
    assert found["int8_alone"] is None
    assert "why_int8" not in found
    assert result["verdict"] == found["settings"][0]["verdict"]


def test_all_four_variants_are_timed_and_scored_and_the_delivered_one_leads(
    with_int8: StageContext,
) -> None:
    result = module.run(with_int8)
    found = json.loads((with_int8.out / "benchmark.json").read_text())
    rows = {row["name"]: row for row in found["variants"]}
    assert list(rows) == ["base", "base_int8", "final", "final_int8"]
    assert [row["chosen"] for row in rows.values()] == [False, False, False, True]
    assert {row["accuracy"] for row in rows.values()} == {0.75}
    assert {row["macs"] for row in rows.values()} == {64}
    assert found["final"]["precision"] == result["precision"] == "int8"
    chosen = rows["final_int8"]
    assert found["final"]["sha256"] == chosen["sha256"] == found["settings"][0]["b"]["sha256"]
    assert found["settings"] == chosen["settings"]
    assert (rows["base"]["ratio"], rows["base"]["settings"]) == (1.0, [])
    assert all(row["memory_bytes"] > 0 for row in rows.values())
    assert all(row["quantiles_ms"]["50"] == row["latency_ms"]["p50"] for row in rows.values())
    assert found["classes"]["final"] == [2, 2, 2, 3]
    assert rows["base_int8"]["settings"][0]["b"]["file"] == "base_int8.onnx"
    alone = found["int8_alone"]
    assert alone["points"] == 0
    change = chosen["accuracy_change"]
    assert (change["images"], change["gained"], change["lost"], change["shown"]) == (
        12,
        0,
        0,
        False,
    )
    assert rows["base"]["accuracy_change"] is None
    assert alone["ratio"] == pytest.approx(chosen["ratio"] / rows["base_int8"]["ratio"], rel=0.5)
    assert found["why"]["by_op"]["QLinearConv (int8)"]["b_nodes"] == 1


def test_fp16_files_are_variants_too_and_why_they_gain_nothing_on_a_cpu_is_said(
    ctx: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: dict[str, Any] = {"chosen": "fp32", "reason": "fp16 is slower here", "tried": []}
    base: dict[str, Any] = {"fp16": {"reason": ""}}
    body = {"mode": "off", **facts, "fp16": {}, "base": base}
    for kind, name in (("onnx_fp16", "model"), ("base_onnx_fp16", "base")):
        path = tmp_path / "quantize" / f"{name}_fp16.onnx"
        with Quantizer() as quantizer:
            quantizer.hold(tmp_path / "export" / f"{name}.onnx")
            path.write_bytes(quantizer.halve()[0])
        ctx.inputs = {**ctx.inputs, kind: (path.parent, {path.name: sha256_file(path)})}
        (body if name == "model" else base)["fp16"]["file"] = {"sha256": sha256_file(path)}
    document("quantization").write(tmp_path / "quantize" / "quantize.json", body)
    monkeypatch.setattr(comparison, "measure", made_up_times)
    monkeypatch.setattr(comparison, "verdict", lambda *ratios: "no difference shown")
    module.run(ctx)
    found = json.loads((ctx.out / "benchmark.json").read_text())
    assert [row["name"] for row in found["variants"]] == [
        "base", "base_fp16", "final", "final_fp16"
    ]  # fmt: skip
    assert {row["accuracy"] for row in found["variants"]} == {0.75}
    assert found["fp16_alone"]["points"] == 0
    assert found["int8_alone"] is None
    assert any("computes it in float32" in cause for cause in found["why_fp16"]["causes"])
    assert found["remarks"][0] == "fp32 is delivered: fp16 is slower here"


def test_int8_that_gains_nothing_is_explained_though_fp32_is_delivered(
    with_int8: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = with_int8.inputs["quantization"]
    shas = [with_int8.inputs[kind][1] for kind in ("onnx_int8", "base_onnx_int8")]
    decide(folder, "fp32", *(next(iter(sha.values())) for sha in shas))
    monkeypatch.setattr(comparison, "measure", made_up_times)
    monkeypatch.setattr(comparison, "verdict", lambda *ratios: "no difference shown")
    module.run(with_int8)
    found = json.loads((with_int8.out / "benchmark.json").read_text())
    assert found["final"]["precision"] == "fp32"
    assert "QLinearConv (int8)" not in found["why"]["by_op"]
    assert "QLinearConv (int8)" in found["why_int8"]["by_op"]
    assert found["remarks"][0] == "fp32 is delivered: INT8 is [no] faster here"
    assert "no gain over INT8 alone shown" in found["remarks"][1]


def test_an_int8_file_that_the_provider_leaves_to_the_cpu_is_left_out_unless_delivered(
    with_int8: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def falls_back(path: Path, *rest: object) -> list[str]:
        raise EnvironmentProblem(f"{path.name} does not run on CUDA")

    monkeypatch.setattr(module, "check_placement", falls_back)
    with_int8.config = Config(benchmark={**SETTINGS, "provider": "cuda"})
    found = module._variants(with_int8, with_int8.read("quantization"))
    assert [variant.name for variant in found] == ["base", "final", "final_int8"]


def test_an_int8_file_other_than_the_one_checked_is_refused(with_int8: StageContext) -> None:
    folder, _ = with_int8.inputs["quantization"]
    decide(folder, "int8", "0" * 64, "0" * 64)
    with pytest.raises(ArtifactError, match=r"base_int8.*not the file whose parity") as caught:
        module.run(with_int8)
    assert "quantize" in caught.value.hint


def test_further_files_are_timed_against_the_base_and_scored_where_they_can_be(
    ctx: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "measure", made_up_times)
    further, wider = brightest_quadrant(tmp_path / "further.onnx"), conv_file(tmp_path, 8, size=8)
    ctx.config = Config(
        benchmark={**SETTINGS, "profile": False, "against": (str(further), str(wider))}
    )
    module.run(ctx)
    found = json.loads((ctx.out / "benchmark.json").read_text())
    assert [row["file"] for row in found["against"]] == ["further.onnx", "conv8.onnx"]
    first, second = found["against"]
    assert first["sha256"] == sha256_file(further) == first["settings"][0]["b"]["sha256"]
    assert first["settings"][0]["a"]["file"] == "base.onnx"
    assert first["accuracy"] == pytest.approx(9 / 12)
    assert second["accuracy"] is None, "it takes 8 channels, the images have 1"
    assert "why" not in found
    assert "alignment" not in found


def test_further_files_count_by_content_not_by_place(tmp_path: Path) -> None:
    path = brightest_quadrant(tmp_path / "further.onnx")
    config = Config(benchmark={**SETTINGS, "against": (str(path),)})
    depends = declared("benchmark").depends
    assert depends(config) == depends(Config(benchmark=SETTINGS))
    assert module.external(config) == {f"benchmark.against {path}": sha256_file(path)}
    path.unlink()
    with pytest.raises(ArtifactError, match=r"further\.onnx") as caught:
        module.external(config)
    assert "benchmark.against" in caught.value.hint


def test_another_file_than_the_one_checked_is_refused(ctx: StageContext) -> None:
    path = ctx.input("onnx")
    path.write_bytes(conv_file(path.parent, 8).read_bytes())
    with pytest.raises(ArtifactError, match="not the file whose parity was checked"):
        module.run(ctx)


def test_stops_between_settings(ctx: StageContext) -> None:
    ctx.stop_signal = lambda: 15
    with pytest.raises(Interrupted):
        module.run(ctx)
    assert not list(ctx.out.iterdir())


def test_accuracy_counts_every_image_at_any_batch(tmp_path: Path) -> None:
    path = brightest_quadrant(tmp_path / "model.onnx")
    for batch in (1, 5, 64):
        assert onnx_accuracy(path, quadrants(wrong=4), batch_size=batch) == pytest.approx(8 / 12)


def test_images_that_only_one_of_two_files_names_are_counted() -> None:
    right = np.zeros(5, int)
    before, after = Named(right, np.array([0, 0, 0, 1, 1])), Named(right, np.array([0, 1, 1, 0, 2]))
    found = accuracy_change(before, after)
    assert (found["images"], found["gained"], found["lost"]) == (5, 1, 2)


def test_an_original_that_only_guesses_is_said(
    ctx: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "measure", made_up_times)
    ctx.config = Config(benchmark={**SETTINGS, "profile": False})
    # 9 of 12 images are not surely more than half of them
    ctx.data_card = SimpleNamespace(num_classes=2, label="", image_shape=None)
    module.run(ctx)
    found = json.loads((ctx.out / "benchmark.json").read_text())
    assert found["base"]["near_chance"]
    assert "which guessing among 2 classes does too" in found["remarks"][0]


def test_the_last_number_of_threads_serves_all_further_batches() -> None:
    found = setting_list(BenchmarkConfig(batches=(1, 8, 32), threads=(1, 2)))
    assert [(setting.batch, setting.threads) for setting in found] == [(1, 1), (8, 2), (32, 2)]
    assert len(setting_list(BenchmarkConfig(batches=(1,), threads=(1, 0)))) == 1

"""The stage: both files by one procedure, what is delivered, and images that it may see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from quantize_nets import images, quadrants

import stages.quantize.stage as module
from pipeline.config.schema import Config
from pipeline.data import Images
from pipeline.data.splits import Splits
from pipeline.errors import Interrupted
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from stages import declared
from stages.quantize import QuantizeReport, half
from stages.quantize.report import Timing


def pictures(count: int, seed: int) -> Images:
    """Quadrants as 8-bit images, sorted by class, as those of folders are."""
    x = torch.from_numpy(images(count, seed)).clamp(-1, 2)
    pixels = ((x + 1) * 80).round().to(torch.uint8).permute(0, 2, 3, 1)
    labels = torch.arange(count) % 4
    order = labels.argsort(stable=True)
    return Images(pixels[order], labels[order], ("a", "b", "c", "d"), (0.4,), (0.3,))


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    for name in ("export", "out", "work"):
        (tmp_path / name).mkdir()
    files = {
        kind: quadrants(tmp_path / "export" / name)
        for kind, name in (("onnx", "model.onnx"), ("base_onnx", "base.onnx"))
    }
    splits = Splits(pictures(60, 1), pictures(40, 2))
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits)
    return StageContext(
        config=Config(),
        out=tmp_path / "out",
        work=tmp_path / "work",
        inputs={
            kind: (path.parent, {path.name: sha256_file(path)}) for kind, path in files.items()
        },
    )


def with_settings(ctx: StageContext, **settings: Any) -> StageContext:
    quantize = ctx.config.quantize.model_copy(update=settings)
    ctx.config = ctx.config.model_copy(update={"quantize": quantize})
    return ctx


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the engine was called with; it finds INT8 to be slower and writes a byte."""
    calls: list[dict[str, Any]] = []

    def quantize(path: Path, out: Path, calibration: Images, search: Images, **how: Any) -> Any:
        calls.append({"path": path, "calibration": calibration, "search": search, **how})
        how["progress"]("anything")
        out.write_bytes(b"x")
        return QuantizeReport("fp32", "slower here")

    monkeypatch.setattr(module, "quantize_onnx", quantize)
    return calls


def test_off_makes_no_file_and_says_so(ctx: StageContext, asked: list[dict[str, Any]]) -> None:
    summary = declared("quantize").run(with_settings(ctx, mode="off"))
    assert asked == []
    assert [path.name for path in ctx.out.iterdir()] == ["quantize.json"]
    found = document("quantization").read(ctx.out / "quantize.json")
    assert (found["chosen"], found["mode"], found["base"]["chosen"]) == ("fp32", "off", "fp32")
    assert "off" in summary["reason"]


def test_both_files_go_the_same_way_and_only_the_final_one_must_be_int8(
    ctx: StageContext, asked: list[dict[str, Any]]
) -> None:
    declared("quantize").run(with_settings(ctx, mode="int8", images=20, search_images=12))
    assert [call["path"].name for call in asked] == ["model.onnx", "base.onnx"]
    assert [call["mode"] for call in asked] == ["int8", "auto"]
    differing = {"path", "mode", "calibration", "search", "progress"}
    first, second = ({k: v for k, v in call.items() if k not in differing} for call in asked)
    assert first == second
    names = sorted(path.name for path in ctx.out.iterdir())
    assert names == ["base_int8.onnx", "model_int8.onnx", "quantize.json"]


def test_fp16_is_made_of_both_files_too_and_delivered_where_it_is_faster(
    ctx: StageContext, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = Timing(2.0, (1.9, 2.1), "faster", (2.0, 1.0))
    monkeypatch.setattr(half, "time_pair", lambda *_: timing)
    limits = {"images": 20, "search_images": 12, "max_accuracy_drop": 3.0}
    summary = declared("quantize").run(with_settings(ctx, fp16="on", mode="off", **limits))
    assert asked == []
    assert (summary["chosen"], summary["ratio"]) == ("fp16", 2.0)
    names = sorted(path.name for path in ctx.out.iterdir())
    assert names == ["base_fp16.onnx", "model_fp16.onnx", "quantize.json"]
    found = document("quantization").read(ctx.out / "quantize.json")
    assert (found["chosen"], found["mode"]) == ("fp16", "off")
    for facts, name in ((found, "model_fp16.onnx"), (found["base"], "base_fp16.onnx")):
        assert facts["fp16"]["file"]["sha256"] == sha256_file(ctx.out / name)
        assert facts["fp16"]["accuracy"]["images"] == 12


def test_any_beginning_of_the_images_is_a_fair_sample(
    ctx: StageContext, asked: list[dict[str, Any]]
) -> None:
    declared("quantize").run(with_settings(ctx, images=20, search_images=12))
    for name, count in (("calibration", 20), ("search", 12)):
        drawn = asked[0][name]
        assert torch.bincount(drawn.labels).tolist() == [count // 4] * 4
        assert drawn.labels.tolist() != sorted(drawn.labels.tolist())
        assert torch.equal(drawn.labels, asked[1][name].labels)


def test_a_stop_ends_it(ctx: StageContext, asked: list[dict[str, Any]]) -> None:
    ctx.stop_signal = lambda: 2
    with pytest.raises(Interrupted):
        declared("quantize").run(ctx)


def test_it_depends_on_the_headline_setting_alone_and_on_nothing_when_off() -> None:
    stage = declared("quantize")

    def depends(**settings: Any) -> dict[str, Any]:
        return stage.depends(Config.model_validate_json(json.dumps(settings)))

    assert depends() == depends(benchmark={"batches": [1, 8], "min_seconds": 9})
    assert depends() != depends(benchmark={"batches": [8]})
    gpu = {"provider": "CUDAExecutionProvider"}
    off = depends(quantize={"mode": "off"})
    assert off != depends(quantize={"mode": "off"}, benchmark=gpu)  # fp16 is made
    assert off == depends(quantize={"mode": "off", "fp16": "off"}, benchmark=gpu)
    assert depends() == depends(quantize={"fp16": "off", "fp16_keep": ["Conv"]})  # of no effect
    assert not {"fp16", "fp16_keep"} & depends()["quantize"].keys()  # as before there was fp16
    on = depends(quantize={"fp16": "on"}, benchmark=gpu)
    assert on == depends(benchmark=gpu) != depends(quantize={"fp16_keep": ["Conv"]}, benchmark=gpu)
    assert off == depends(quantize={"mode": "off", "images": 7}, benchmark={"batches": [8]})

"""The stage: both files and their parity committed, or neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from export_nets import Small, lively

import stages.export.stage as module
from pipeline.config.schema import Config
from pipeline.data import Images, Splits
from pipeline.errors import Refused
from pipeline.run.stage import StageContext
from stages.export.parity import ParityReport


def images(count: int = 24) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 8, 8, 3), generator=generator).to(torch.uint8)
    return Images(pixels, torch.arange(count) % 4, ("a", "b", "c", "d"))


class Notes:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def progress(self, done: int, total: int, **fields: Any) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    """A context in which base is 8 and final 4 channels wide; no way to the test images."""
    widths = {"base": 8, "final": 4}
    monkeypatch.setattr(module, "load_model", lambda folder: lively(Small(widths[folder.name])))
    monkeypatch.setattr(
        module, "load_splits", lambda config, seed: Splits(train=images(), search=images())
    )
    for name in ("out", "work", "base", "final"):
        (tmp_path / name).mkdir()
    inputs: dict[str, tuple[Path, dict[str, str]]] = {"data": (tmp_path, {})}
    for role in widths:
        (tmp_path / role / "model.safetensors").write_bytes(role.encode())
        inputs[f"{role}_model"] = (tmp_path / role, {})
    settings = {"exporter": "torchscript", "images": 16, "opset": 17}
    return StageContext(
        Config(export=settings), tmp_path / "out", tmp_path / "work", inputs, Notes()
    )


def test_writes_both_files_and_their_parity(ctx: StageContext) -> None:
    result = module.run(ctx)
    assert sorted(path.name for path in ctx.out.iterdir()) == [
        "base.onnx",
        "model.onnx",
        "parity.json",
    ]
    parity = json.loads((ctx.out / "parity.json").read_text())
    assert parity["images"] == 16
    assert (ctx.out / "model.onnx").stat().st_size < (ctx.out / "base.onnx").stat().st_size
    for role in ("base", "final"):
        assert parity[role]["passed"]
        assert parity[role]["sha256"] == parity[role]["export"]["sha256"]
        assert parity[role]["export"]["exporter"] == "torchscript"
    assert str(ctx.out) not in (ctx.out / "parity.json").read_text()
    assert result["top1_agreement"] == 1.0
    assert result["opset"] == 17


def test_out_of_tolerance_is_refused(ctx: StageContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParityReport, "problems", property(lambda self: ["they differ"]))
    with pytest.raises(Refused, match="they differ"):
        module.run(ctx)
    assert not (ctx.out / "parity.json").exists()


def test_tries_the_other_exporter_when_parity_fails(
    ctx: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str | None] = []
    real = module.export_onnx

    def export(*args: Any, exporter: str | None = None, **kwargs: Any) -> Any:
        calls.append(exporter)
        report = real(*args, exporter="torchscript", **kwargs)
        return (
            report if exporter else type(report)(**{**report.to_dict(), "exporter": "torch.export"})
        )

    wrong = iter([["one class off"], ["one class off"], ["one class off"]])
    monkeypatch.setattr(module, "export_onnx", export)
    monkeypatch.setattr(ParityReport, "problems", property(lambda self: next(wrong, [])))
    ctx.config = Config(export={"exporter": "auto", "images": 16, "opset": 17})
    module.run(ctx)
    assert calls[:2] == [None, "torchscript"]
    assert "one class off; trying the torchscript exporter" in ctx.reporter.warnings[0]
    export = json.loads((ctx.out / "parity.json").read_text())["base"]["export"]
    assert export["exporter"] == "torchscript"
    assert export["fallback"] == "torch.export: parity missed: one class off"

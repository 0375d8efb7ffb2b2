"""The stage on saved models: what it writes, and the same bytes after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from distill_nets import pair
from tiny_training import Kill, Recorder, context, splits

import pipeline.run.checkpoints as checkpoints
import stages.distill.stage as module
from pipeline.models import load_model, save_model
from pipeline.run.stage import StageContext
from pipeline.training import Callbacks, accuracy

DISTILL = {
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.02,
    "precision": "fp32",
    "bn_images": 64,
    "augment": {"crop": 1},
}


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = pair()
    save_model(teacher, tmp_path / "base_model")
    save_model(student, tmp_path / "reconstructed_model")
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits())
    monkeypatch.setattr(
        checkpoints, "Callbacks", lambda **given: Callbacks(**given, progress_seconds=0.0)
    )


def prepared(root: Path, kill_at: int = 0, **distill: Any) -> StageContext:
    inputs = {kind: root.parent / kind for kind in ("base_model", "reconstructed_model")}
    return context(root, inputs, kill_at, distill=DISTILL | distill)


def test_writes_the_recovered_model_and_its_history(tmp_path: Path) -> None:
    ctx = prepared(tmp_path / "run")
    summary = module.run(ctx)
    document = json.loads((ctx.out / "distill.json").read_text())
    assert document["search_accuracy"].keys() == {"teacher", "cut", "batchnorm", "final"}
    assert accuracy(load_model(ctx.out), splits().search) == document["search_accuracy"]["final"]
    assert summary["search_accuracy"] == document["search_accuracy"]["final"]
    assert [row["epoch"] for row in document["training"]["history"]] == [1, 2, 3]
    shapes = [tuple(p.shape) for p in load_model(tmp_path / "reconstructed_model").parameters()]
    assert [tuple(p.shape) for p in load_model(ctx.out).parameters()] == shapes


@pytest.mark.parametrize("crop", [0, 1], ids=["teacher cached", "teacher asked"])
def test_killed_and_typed_again_ends_in_the_same_bytes(tmp_path: Path, crop: int) -> None:
    augment = {"crop": crop, "flip": False}
    whole = prepared(tmp_path / "whole", augment=augment)
    module.run(whole)
    with pytest.raises(Kill):
        module.run(prepared(tmp_path / "part", kill_at=10, augment=augment))
    again = prepared(tmp_path / "part", augment=augment)
    module.run(again)
    assert isinstance(again.reporter, Recorder)
    assert any("resumed after step 6" in text for text in again.reporter.said)
    expected = (whole.out / "model.safetensors").read_bytes()
    assert (again.out / "model.safetensors").read_bytes() == expected


def test_bn_only_trains_nothing(tmp_path: Path) -> None:
    ctx = prepared(tmp_path / "run", mode="bn_only")
    module.run(ctx)
    assert json.loads((ctx.out / "distill.json").read_text())["training"] is None
    assert not list(ctx.work.iterdir())

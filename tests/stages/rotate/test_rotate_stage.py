"""The stage on a saved model: what it writes, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import context, splits

import stages.rotate.stage as module
from pipeline.config.schema import ModelConfig
from pipeline.models import build_model, load_model, save_model
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from pipeline.training import accuracy
from stages.trace import trace

SOURCES = {"mobilenet_v2": {"width_mult": 0.25}, "resnet20": {"width": 4}}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits())


def prepared(root: Path, name: str, **settings: Any) -> StageContext:
    torch.manual_seed(0)
    source = ModelConfig(source=name, kwargs=SOURCES[name])
    original = build_model(source, in_channels=1, num_classes=2)
    save_model(original, root / "base_model")
    (root / "graph").mkdir()
    graph = trace(original, torch.zeros(2, 1, 8, 8))
    document("graph").write(root / "graph" / "graph.json", graph.to_dict())
    inputs = {kind: root / kind for kind in ("base_model", "graph")}
    return context(root, inputs, rotate=settings)


def written(ctx: StageContext) -> dict[str, Any]:
    return json.loads((ctx.out / "rotation.json").read_text())


def test_writes_the_network_and_says_what_became_of_each_group(tmp_path: Path) -> None:
    ctx = prepared(tmp_path, "mobilenet_v2")
    summary = module.run(ctx)
    found = written(ctx)
    assert summary["groups"] == len(found["groups"]) >= 6
    assert "features.2.conv.2" in [group["id"] for group in found["groups"]]
    assert "features.2.conv.0.0" in found["left"]
    assert found["images"] == len(splits().train)
    before, after = load_model(tmp_path / "base_model"), load_model(ctx.out)
    weights = [model.state_dict()["features.2.conv.2.weight"] for model in (before, after)]
    assert not torch.allclose(*weights, atol=1e-3)
    assert accuracy(before, splits().search) == accuracy(after, splits().search)


@pytest.mark.parametrize(("name", "images"), [("mobilenet_v2", 0), ("resnet20", 64)])
def test_passes_the_network_on_where_nothing_is_to_rotate(
    tmp_path: Path, name: str, images: int
) -> None:
    ctx = prepared(tmp_path, name, images=images)
    assert module.run(ctx)["groups"] == 0
    assert written(ctx)["groups"] == []
    before = load_model(tmp_path / "base_model").state_dict()
    after = load_model(ctx.out).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)

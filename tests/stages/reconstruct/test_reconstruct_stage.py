"""The stage on saved models: what it writes, and which network it keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Recorder, context, images, splits

import stages.reconstruct.stage as module
from pipeline.config.schema import ModelConfig
from pipeline.errors import Set, UsageError
from pipeline.models import build_model, load_model, save_model
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from pipeline.training import Recipe, accuracy, fit
from stages.prune import ChannelPlan, prune
from stages.reconstruct.engine import TooLittleMemory
from stages.trace import trace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, its graph, a plan, and what the plan leaves of it."""
    root = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    source = ModelConfig(source="resnet20", kwargs={"width": 4})
    original = build_model(source, in_channels=1, num_classes=2)
    fit(original, splits().train, splits().search, Recipe(6, 16, 0.05, precision="fp32"), seed=0)
    graph = trace(original, torch.zeros(2, 1, 8, 8))
    plan = ChannelPlan.uniform(graph, cut=0.5)
    save_model(original, root / "rotated_model")
    save_model(prune(original, graph, plan), root / "pruned_model")
    for kind, body in (("graph", graph.to_dict()), ("plan", plan.to_dict())):
        (root / kind).mkdir()
        document(kind).write(root / kind / document(kind).file, body)
    return root


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits())


def prepared(made: Path, root: Path, **settings: Any) -> StageContext:
    kinds = ("rotated_model", "pruned_model", "graph", "plan")
    return context(root, {kind: made / kind for kind in kinds}, reconstruct=settings)


def written(ctx: StageContext) -> dict[str, Any]:
    return json.loads((ctx.out / "reconstruct.json").read_text())


def test_writes_the_network_and_what_became_of_each_layer(made: Path, tmp_path: Path) -> None:
    ctx = prepared(made, tmp_path)
    summary = module.run(ctx)
    found = written(ctx)
    scores = found["accuracy"]
    assert scores == {name: summary[name] for name in ("original", "cut", "reconstructed")}
    assert accuracy(load_model(ctx.out), splits().search) == scores[found["kept"]]
    assert scores[found["kept"]] == max(scores["cut"], scores["reconstructed"])
    before = load_model(made / "pruned_model").state_dict()
    after = load_model(ctx.out).state_dict()
    assert {name: t.shape for name, t in before.items()} == {n: t.shape for n, t in after.items()}
    refitted = [layer for layer in found["layers"] if not layer["kept"]]
    assert refitted
    assert all(layer["error_after"] < layer["error_before"] for layer in refitted)


def test_a_network_that_scores_worse_is_not_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.6, 0.5])
    monkeypatch.setattr(module, "accuracy", lambda model, images: next(scores))
    ctx = prepared(made, tmp_path)
    assert module.run(ctx)["kept"] == "cut"
    before = load_model(made / "pruned_model").state_dict()
    after = load_model(ctx.out).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_images_leave_the_network_as_it_was_cut(made: Path, tmp_path: Path) -> None:
    ctx = prepared(made, tmp_path, images=0)
    assert module.run(ctx)["kept"] == "cut"
    assert written(ctx)["accuracy"].keys() == {"original", "cut"}
    assert written(ctx)["layers"] == []


def test_too_few_images_are_refused_before_any_work(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 8 images, got 4") as caught:
        module.run(prepared(made, tmp_path, images=4))
    assert Set("reconstruct.images", 1024) in caught.value.hint.parts


def test_a_train_split_of_few_images_can_do_without(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(splits(), train=images(5))
    monkeypatch.setattr(module, "load_splits", lambda config, seed: few)
    with pytest.raises(UsageError, match="at least 8 images, got 5") as caught:
        module.run(prepared(made, tmp_path))
    assert Set("reconstruct.images", 0) in caught.value.hint.parts


def test_memory_that_does_not_do_is_said_as_a_setting(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*given: Any, max_bytes: int, **options: Any) -> None:
        raise TooLittleMemory(200 << 20, max_bytes)

    monkeypatch.setattr(module, "reconstruct_layers", greedy)
    with pytest.raises(UsageError, match="needs 200 MiB at least, 64 MiB are allowed") as caught:
        module.run(prepared(made, tmp_path, memory_mb=64))
    assert Set("reconstruct.memory_mb", 201) in caught.value.hint.parts


def test_images_that_do_not_fit_are_left_out_and_it_says_so(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.reconstruct_layers
    monkeypatch.setattr(
        module,
        "reconstruct_layers",
        lambda *given, max_bytes, **options: real(*given, max_bytes=1 << 18, **options),
    )
    ctx = prepared(made, tmp_path)
    module.run(ctx)
    used = written(ctx)["images"]
    assert 8 <= used < len(splits().train)
    assert isinstance(ctx.reporter, Recorder)
    assert ctx.reporter.said == [
        f"{used} of {len(splits().train)} images fit into reconstruct.memory_mb"
    ]

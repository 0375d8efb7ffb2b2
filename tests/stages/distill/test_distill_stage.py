"""The stage on saved models: what it writes, and the same bytes after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_nets import pair
from safetensors.torch import load_file, save_file
from tiny_training import Kill, Recorder, context, splits
from torch import Tensor

import pipeline.run.checkpoints as checkpoints
import stages.distill.stage as module
from pipeline.config.schema import Config
from pipeline.errors import ArtifactError
from pipeline.models import load_model, save_model
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.training import Callbacks, accuracy
from stages import declared

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
    found, change = document["search_accuracy"], document["search_change"]
    assert change["points"] == pytest.approx(100 * (found["final"] - found["teacher"]))
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


def own(tmp_path: Path, change: Callable[[dict[str, Tensor]], None], **distill: Any) -> Any:
    """The stage with weights of its student, changed."""
    tensors = load_file(tmp_path / "reconstructed_model" / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "mine.safetensors")
    return prepared(tmp_path / "run", weights=str(tmp_path / "mine.safetensors"), **distill)


def test_weights_of_ones_own_are_adopted_whatever_is_set_beside_them(tmp_path: Path) -> None:
    ctx = own(tmp_path, lambda tensors: tensors["linear.weight"].neg_(), epochs=50)
    module.run(ctx)
    found = json.loads((ctx.out / "distill.json").read_text())
    assert (found["mode"], found["kept"], found["training"]) == ("adopted", "adopted", None)
    digest = sha256_file(tmp_path / "mine.safetensors")
    assert found["weights"] == {"name": "mine.safetensors", "sha256": digest}
    before = load_model(tmp_path / "reconstructed_model")
    after = load_model(ctx.out)
    assert torch.equal(after.linear.weight, -before.linear.weight)
    measured = found["search_accuracy"]
    assert measured["cut"] == accuracy(before, splits().search)
    assert measured["final"] == accuracy(after, splits().search)
    assert measured["final"] < measured["cut"]
    assert any("less accurate than without training" in text for text in ctx.reporter.said)


def test_weights_of_another_network_are_refused_with_three_of_each_kind(tmp_path: Path) -> None:
    def of_another(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("conv1.weight")]:
            tensors[name] = tensors[name][:1].clone()
        for name in [name for name in tensors if name.endswith("bn2.weight")]:
            tensors[f"other.{name}"] = tensors.pop(name)

    ctx = own(tmp_path, of_another)
    with pytest.raises(ArtifactError, match="does not fit the network") as caught:
        module.run(ctx)
    for kind in (", expected", "is missing", "is unexpected"):
        assert caught.value.message.count(kind) == 3
    assert caught.value.message.count(" more") == 3
    assert "rlp inspect" in caught.value.hint
    assert list(ctx.out.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    ctx = own(tmp_path, lambda tensors: tensors["linear.weight"].fill_(float("nan")))
    with pytest.raises(ArtifactError, match=r"NaN or infinity in linear\.weight"):
        module.run(ctx)


def test_weights_count_by_content_and_nothing_else_of_the_section(tmp_path: Path) -> None:
    stage = declared("distill")
    one = own(tmp_path, lambda tensors: None).config
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.safetensors").write_bytes((tmp_path / "mine.safetensors").read_bytes())
    other = Config(distill={"weights": str(elsewhere / "mine.safetensors"), "epochs": 7})
    assert stage.depends(one)["distill"] == stage.depends(other)["distill"]
    assert stage.external(one) == stage.external(other) != {}
    own(tmp_path, lambda tensors: tensors["linear.bias"].add_(1))
    assert stage.external(one) != stage.external(other)
    here = Config(distill={"epochs": 7})
    assert stage.external(here) == {}
    assert stage.depends(here) != stage.depends(Config())


def test_where_nothing_is_trained_the_way_to_train_elsewhere_is_said(tmp_path: Path) -> None:
    ctx = prepared(tmp_path / "run", epochs=0)
    module.run(ctx)
    assert any("rlp stage distill --run RUN --weights FILE" in text for text in ctx.reporter.said)

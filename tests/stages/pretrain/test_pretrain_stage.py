"""The stage: trains or adopts, repeats to the byte, survives a kill, says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Kill, Recorder, context, splits
from torch import nn

import pipeline.run.checkpoints as checkpoints
import stages.pretrain.stage as module
from pipeline.config.schema import Config
from pipeline.errors import ArtifactError, EnvironmentProblem, Interrupted, Refused
from pipeline.models import how_trained, load_model
from pipeline.models.weights import shipped_weights
from pipeline.run import store
from pipeline.run.stage import StageContext
from pipeline.training import Callbacks, accuracy
from stages import declared

NET = (
    "from torch import nn\n"
    "def net(num_classes, in_channels):\n"
    "    stem = nn.Conv2d(in_channels, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()\n"
    "    return nn.Sequential(*stem, nn.Dropout(0.3), nn.Flatten(), nn.Linear(36, num_classes))\n"
)
MODEL = {"source": "own_halves_net:net"}
PRETRAIN = {
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.05,
    "precision": "fp32",
    "augment": {"crop": 1, "flip": False},
}


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_halves_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits())
    monkeypatch.setattr(
        checkpoints, "Callbacks", lambda **given: Callbacks(**given, progress_seconds=0.0)
    )


def prepared(
    root: Path, kill_at: int = 0, model: dict[str, Any] = MODEL, **pretrain: Any
) -> StageContext:
    return context(root, kill_at=kill_at, model=model, pretrain=PRETRAIN | pretrain)


def weights(ctx: StageContext) -> bytes:
    return (ctx.out / "model.safetensors").read_bytes()


def test_trains_and_writes_the_best_epoch(tmp_path: Path) -> None:
    ctx = prepared(tmp_path / "run")
    summary = module.run(ctx)
    assert sorted(p.name for p in ctx.out.iterdir()) == [
        "data.json",
        "model.json",
        "model.safetensors",
        "train.json",
    ]
    train = json.loads((ctx.out / "train.json").read_text())
    assert train["how"] == "trained"
    assert train["recipe"]["lr"] == 0.05
    assert train["images"] == {"train": 96, "search": 40}
    assert [row["epoch"] for row in train["history"]] == [1, 2, 3]
    assert (
        accuracy(load_model(ctx.out), splits().search)
        == train["search_accuracy"]
        == summary["search_accuracy"]
    )
    assert json.loads((ctx.out / "data.json").read_text())["label"] == "halves"


@pytest.mark.parametrize("kill_at", [4, 9, 18])
def test_killed_and_typed_again_ends_in_the_same_bytes(tmp_path: Path, kill_at: int) -> None:
    whole = prepared(tmp_path / "whole")
    module.run(whole)
    with pytest.raises(Kill):
        module.run(prepared(tmp_path / "part", kill_at=kill_at))
    again = prepared(tmp_path / "part")
    module.run(again)
    assert weights(again) == weights(whole)
    assert isinstance(again.reporter, Recorder)
    assert any("resumed after step" in text for text in again.reporter.said) == (kill_at > 6)


def test_stop_request_saves_and_interrupts(tmp_path: Path) -> None:
    whole = prepared(tmp_path / "whole")
    module.run(whole)
    ctx = prepared(tmp_path / "part")
    ctx.stop_signal = lambda: 15
    with pytest.raises(Interrupted) as caught:
        module.run(ctx)
    assert caught.value.exit_code == 143
    again = prepared(tmp_path / "part")
    module.run(again)
    assert weights(again) == weights(whole)


def test_checkpoint_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(Kill):
        module.run(prepared(tmp_path / "run", kill_at=9, lr=0.01))
    again = prepared(tmp_path / "run")
    module.run(again)
    fresh = prepared(tmp_path / "fresh")
    module.run(fresh)
    assert weights(again) == weights(fresh)
    assert isinstance(again.reporter, Recorder)
    assert any("set aside" in text for text in again.reporter.said)


def test_damaged_checkpoint_starts_over_with_a_warning(tmp_path: Path) -> None:
    with pytest.raises(Kill):
        module.run(prepared(tmp_path / "run", kill_at=9))
    (tmp_path / "run" / "work" / "checkpoint.json").write_text("{}")
    again = prepared(tmp_path / "run")
    module.run(again)
    assert isinstance(again.reporter, Recorder)
    assert any("training starts over" in text for text in again.reporter.said)


def test_divergence_is_refused_with_the_step_and_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(model: nn.Module, *rest: Any, **more: Any) -> None:
        raise Refused("training diverged at step 5 of 18: loss nan, gradient norm nan")

    monkeypatch.setattr(checkpoints, "fit", explode)
    with pytest.raises(Refused, match="step 5") as caught:
        module.run(prepared(tmp_path / "run"))
    assert caught.value.hint.startswith("--set pretrain.lr=0.025 ")


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"]
)
def test_out_of_memory_names_the_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def starve(model: nn.Module, *rest: Any, **more: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(checkpoints, "fit", starve)
    with pytest.raises(EnvironmentProblem, match="out of memory") as caught:
        module.run(prepared(tmp_path / "run"))
    assert caught.value.hint == "--set pretrain.batch_size=8"


def test_adopts_given_weights(tmp_path: Path) -> None:
    trained = prepared(tmp_path / "trained")
    module.run(trained)
    tensors = store.read_tensors(trained.out / "model.safetensors")
    store.write_tensors(
        tmp_path / "given.safetensors", {f"module.{name}": t for name, t in tensors.items()}
    )
    model = MODEL | {"weights": "given.safetensors"}
    ctx = prepared(tmp_path / "adopted", model=model)
    summary = module.run(ctx)
    adopted = store.read_tensors(ctx.out / "model.safetensors")
    assert all(torch.equal(adopted[name], tensor) for name, tensor in tensors.items())
    train = json.loads((ctx.out / "train.json").read_text())
    assert train["weights"] == {
        "name": "given.safetensors",
        "sha256": store.sha256_file(tmp_path / "given.safetensors"),
    }
    assert summary["how"] == "adopted"
    again = prepared(tmp_path / "tuned", epochs=1, lr=1e-9, init="given.safetensors")
    module.run(again)
    tuned = store.read_tensors(again.out / "model.safetensors")
    torch.testing.assert_close(tuned["0.weight"], tensors["0.weight"])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    store.write_tensors(tmp_path / "other.safetensors", {"0.weight": torch.zeros(4, 3, 3, 3)})
    with pytest.raises(
        ArtifactError, match=r"0\.weight is \[4, 3, 3, 3\], expected \[4, 1, 3, 3\]"
    ):
        module.run(prepared(tmp_path / "run", model=MODEL | {"weights": "other.safetensors"}))


def test_what_the_result_depends_on(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    training = Config(model=MODEL, pretrain=PRETRAIN)
    given = Config(model=MODEL | {"weights": "w.safetensors"}, pretrain=PRETRAIN)
    assert declared("pretrain").depends(training)["pretrain"]["lr"] == 0.05
    assert declared("pretrain").depends(given)["model"]["weights"] == "w.safetensors"
    assert "pretrain" not in declared("pretrain").depends(given)
    assert module.external(given) == {
        "w.safetensors": store.sha256_file(tmp_path / "w.safetensors"),
        "own_halves_net.py": store.sha256_file(tmp_path / "own_halves_net.py"),
    }
    assert module.external(Config(model={"source": "resnet20"})) == {}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"seed": 7}, "trained with seed 7, this run has seed 0"),
        ({"data": {"sha256": "0" * 64}}, "trained on another copy of these images"),
        ({}, ""),
        ({"seed": 7, "data": {"images": {"train": 9}}}, ""),  # of other images
        ({"seed": 7, "sha256": "of other weights"}, ""),
    ],
)
def test_shipped_weights_that_saw_the_search_split_are_told_apart_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], says: str
) -> None:
    trained = prepared(tmp_path / "trained")
    module.run(trained)
    (tmp_path / "renamed.safetensors").write_bytes(weights(trained))
    ctx = prepared(tmp_path / "adopted", model=MODEL | {"weights": "renamed.safetensors"})
    data = {"images": ctx.data_card.images, "sha256": ctx.data_card.sha256} | record.pop("data", {})
    entry = {
        "sha256": store.sha256_file(tmp_path / "renamed.safetensors"),
        "seed": 0,
        "data": data,
    } | record
    store.write_json(tmp_path / "MANIFEST.json", {"weights": {"shipped.safetensors": entry}})
    monkeypatch.setattr("pipeline.models.weights.shipped_weights", lambda: tmp_path)
    warned: list[str] = []
    monkeypatch.setattr(ctx.reporter, "warn", warned.append)
    monkeypatch.setattr(module, "accuracy", lambda model, images: 0.9)
    module.run(ctx)
    assert len(warned) == bool(says)
    assert all(says in text and text.startswith("renamed.safetensors: ") for text in warned)


def test_adopted_weights_that_only_guess_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = prepared(tmp_path / "trained")
    module.run(trained)
    (tmp_path / "given.safetensors").write_bytes(weights(trained))
    ctx = prepared(tmp_path / "adopted", model=MODEL | {"weights": "given.safetensors"})
    warned: list[str] = []
    monkeypatch.setattr(ctx.reporter, "warn", warned.append)
    monkeypatch.setattr(module, "accuracy", lambda model, images: 0.01)
    module.run(ctx)
    (said,) = warned
    assert said.startswith("given.safetensors on the search split names 1.00% of the images")
    assert "other mean and std, image size or order of classes?" in said


def test_every_shipped_file_says_how_it_was_trained() -> None:
    files = sorted(shipped_weights().glob("*.safetensors"))
    assert files
    for path in files:
        record = how_trained(path)
        assert record is not None, f"{path.name} is not the file that MANIFEST.json describes"
        assert record["command"].startswith("rlp stage pretrain ")
        assert isinstance(record["seed"], int)
        assert record["data"].keys() == {"label", "sha256", "images"}
        assert 0.5 < record["test_accuracy"] < 1
    assert sum(path.stat().st_size for path in files) < 30e6


def test_a_test_split_that_is_train_is_refused(tmp_path: Path) -> None:
    ctx = prepared(tmp_path / "run")
    same = replace(ctx.data_card, split_sha256={"train": "a1", "test": "a1"})
    with pytest.raises(ArtifactError, match=r"train and test are the same [1-9]"):
        module.run(replace(ctx, data_card=same))
    other = replace(same, split_sha256={"train": "a1", "test": "b2"})
    assert module.run(replace(ctx, data_card=other))["how"] == "trained"


def test_computed_weights_are_stored_plain(tmp_path: Path) -> None:
    text = NET.replace("nn.Linear(36, num_classes)", "weight_norm(nn.Linear(36, num_classes))")
    (tmp_path / "own_normed_net.py").write_text(
        f"from torch.nn.utils.parametrizations import weight_norm\n{text}"
    )
    ctx = prepared(tmp_path / "run", model={"source": "own_normed_net:net"})
    record = module.run(ctx)
    model = load_model(ctx.out)
    assert type(model[5]) is nn.Linear
    assert json.loads((ctx.out / "model.json").read_text())["folded"] == ["5"]
    assert accuracy(model, splits().search) == record["search_accuracy"]

"""Checkpoints on disk: one commit, hashed, and never taken for another training's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import images, net, recipe

from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.run import store
from pipeline.run.checkpoints import CheckpointFolder
from pipeline.training import Callbacks, Checkpoint, fit


@pytest.fixture
def saved(tmp_path: Path) -> list[Checkpoint]:
    """Three checkpoints of one training, the last two written to `tmp_path`."""
    states: list[Checkpoint] = []
    fit(net(), images(), images(20, 9), recipe(), seed=0, callbacks=Callbacks(save=states.append))
    for state in states[1:]:
        CheckpointFolder(tmp_path, {"seed": 0}).save(state)
    return states


def test_round_trip_keeps_the_newest_only(saved: list[Checkpoint], tmp_path: Path) -> None:
    loaded = CheckpointFolder(tmp_path, {"seed": 0}).load()
    assert loaded is not None
    assert loaded.progress == saved[-1].progress
    assert loaded.tensors.keys() == saved[-1].tensors.keys()
    assert all(torch.equal(loaded.tensors[name], t) for name, t in saved[-1].tensors.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-18.safetensors",
        "checkpoint.json",
    ]


def test_another_training_is_not_resumed(saved: list[Checkpoint], tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path, {"seed": 1}).load() is None
    assert CheckpointFolder(tmp_path / "nowhere", {"seed": 0}).load() is None


@pytest.mark.parametrize("name", ["checkpoint.json", "checkpoint-18.safetensors"])
def test_one_flipped_bit(saved: list[Checkpoint], tmp_path: Path, name: str) -> None:
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ArtifactError):
        CheckpointFolder(tmp_path, {"seed": 0}).load()


@pytest.mark.parametrize("nth", [1, 2])
def test_killed_or_full_disk_while_saving_leaves_the_one_before(
    saved: list[Checkpoint], tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of step 6 is saved over that of step 18; whichever file fails, 18 stays whole."""
    calls, real = [], store.write_bytes

    def failing(path: Path, data: bytes) -> str:
        calls.append(path)
        if len(calls) == nth:
            raise EnvironmentProblem(f"{path}: No space left on device")
        return real(path, data)

    monkeypatch.setattr(store, "write_bytes", failing)
    keeper = CheckpointFolder(tmp_path, {"seed": 0})
    with pytest.raises(EnvironmentProblem):
        keeper.save(saved[0])
    loaded = keeper.load()
    assert loaded is not None
    assert loaded.progress["step"] == 18

"""State dicts saved by torch.save: what loads, and what is refused without being run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn
from weight_files import net, refused

from pipeline.models import adopt_weights, load_weights


class Canary:
    """Unpickling it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": dict(s)}]
)
def test_state_dict_bare_or_nested(tmp_path: Path, wrap: object) -> None:
    torch.save(wrap(net().state_dict()), tmp_path / "w.pth")
    tensors = load_weights(tmp_path / "w.pth")
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    adopt_weights(other, tensors, "w.pth")
    assert torch.equal(other[3].weight, net()[3].weight)


def test_whole_module_is_refused_and_never_run(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "module.pth")
    refused(tmp_path / "module.pth", "refused: a pickle that names .*Sequential")
    torch.save({"w": torch.zeros(1), "canary": Canary(tmp_path / "ran")}, tmp_path / "canary.pt")
    refused(tmp_path / "canary.pt", "refused: a pickle that names .*nothing in it was run")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    refused(tmp_path / "bare.pth", "a bare pickle")
    assert not (tmp_path / "ran").exists()


def test_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "holds list")
    torch.save({"lr": 0.1, "epoch": 2}, tmp_path / "dict.pt")
    refused(tmp_path / "dict.pt", "keys lr, epoch")
    torch.save(OrderedDict(), tmp_path / "empty.pt")
    refused(tmp_path / "empty.pt", "not a state dict|no tensors")
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "huge.pt")
    refused(tmp_path / "huge.pt", "no plain dense tensor")


def test_torchscript_and_zip_bomb(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 10_000_000)
    (tmp_path / "bomb.pth").write_bytes(packed.getvalue())
    refused(tmp_path / "bomb.pth", "unpacks to 10000000 bytes")
    for name, members in {
        "other.pth": ["a/readme"],
        "script.pt": ["a/data.pkl", "a/constants.pkl"],
    }.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, b"x")
    refused(tmp_path / "other.pth", "not a PyTorch checkpoint")
    refused(tmp_path / "script.pt", "TorchScript")

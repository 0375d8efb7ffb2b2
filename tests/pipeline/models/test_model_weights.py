"""Published weights: what loads, what fits, and what is refused without being run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import ArtifactError
from pipeline.models import adopt_weights, find_weights, load_weights
from pipeline.run import store
from pipeline.system import file_type


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))


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


def test_safetensors_fp16_and_prefix(tmp_path: Path) -> None:
    half = {
        f"module.{name}": t.half() if t.is_floating_point() else t
        for name, t in net().state_dict().items()
    }
    del half["module.1.num_batches_tracked"]
    store.write_tensors(tmp_path / "w.safetensors", half)
    other = net()
    adopt_weights(other, load_weights(tmp_path / "w.safetensors"), "w")
    assert other[0].weight.dtype == torch.float32
    assert torch.equal(other[0].weight, net()[0].weight.half().float())


def test_mismatches_are_listed_and_nothing_is_copied() -> None:
    model = net()
    tensors = {name: torch.zeros_like(t) for name, t in model.state_dict().items()}
    tensors["3.weight"] = torch.zeros(5, 2)
    del tensors["0.bias"]
    tensors["extra"] = torch.zeros(1)
    with pytest.raises(ArtifactError, match="does not fit the network") as caught:
        adopt_weights(model, tensors, "w")
    assert caught.value.message.endswith(
        ": 3.weight is [5, 2], expected [2, 2]; 0.bias [2] is missing; extra [1] is unexpected"
    )
    assert torch.equal(model[0].weight, net()[0].weight)


def refused(path: Path, match: str) -> ArtifactError:
    with pytest.raises(ArtifactError, match=match) as caught:
        load_weights(path)
    assert str(path) in caught.value.message
    return caught.value


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


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 50, "a PNG image"),
        (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            "a git-lfs pointer",
        ),
        (pickle.dumps({"w": 1}), "a pickle"),
        (b'{"w": 1}', "JSON text"),
        (b"hello weights", "a text file"),
        (b"\x00\x01\x02\x03" * 9, "unrecognised binary data"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_it_really_is(tmp_path: Path, data: bytes, kind: str, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data)
    refused(path, "bare pickle" if (suffix, kind) == (".pth", "a pickle") else kind)


def test_checkpoint_named_safetensors_and_the_other_way(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "w.safetensors")
    assert "w.pth" in refused(tmp_path / "w.safetensors", "a PyTorch checkpoint").hint
    store.write_tensors(tmp_path / "w.pth", net().state_dict())
    refused(tmp_path / "w.pth", "a safetensors file")


@pytest.mark.parametrize("cut", [4, 40, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated(tmp_path: Path, cut: int, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(net().state_dict(), path)
    else:
        store.write_tensors(path, net().state_dict())
    path.write_bytes(path.read_bytes()[:cut])
    refused(path, "damaged|not a")


def test_nan_size_cap_and_links(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    store.write_tensors(path, {"w": torch.tensor([1.0, float("nan")])})
    refused(path, "NaN or infinity in w")
    with pytest.raises(ArtifactError, match="more than the 10 allowed"):
        load_weights(path, max_bytes=10)
    (tmp_path / "link.safetensors").symlink_to(path)
    refused(tmp_path / "link.safetensors", "not a regular file")


def test_find_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    assert find_weights("mine.safetensors") == Path("mine.safetensors")
    with pytest.raises(ArtifactError, match="no such weights"):
        find_weights("pretrained_model/nothing.safetensors")


def test_guess_safetensors_and_zip(tmp_path: Path) -> None:
    path = tmp_path / "w"
    store.write_tensors(path, {"w": torch.zeros(1)})
    assert file_type(path.read_bytes()) == "a safetensors file"
    assert file_type(b"PK\x03\x04") == "a zip archive"

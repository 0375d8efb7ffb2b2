"""Published weights: what loads, what fits, and what is refused for what it really is."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from weight_files import net, refused

from pipeline.errors import ArtifactError
from pipeline.models import adopt_weights, find_weights, load_weights
from pipeline.run import store
from pipeline.system import file_type


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

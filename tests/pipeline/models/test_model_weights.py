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
    assert load_weights(tmp_path / "w.pth").keys() == net().state_dict().keys()


def named(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in net().state_dict().items()}


@pytest.mark.parametrize(
    ("tensors", "left_out"),
    [
        (named("module._orig_mod.backbone.") | {"n_averaged": torch.tensor(3)}, "n_averaged"),
        (named("model.") | {"criterion.weight": torch.ones(2)}, "criterion.weight"),
        (named("net.") | named("ema.net."), "ema.net.0.weight, ema.net.0.bias"),
    ],
    ids=["averaged", "lightning", "two copies"],
)
def test_what_stands_outside_of_the_network_is_left_out_and_said(
    tensors: dict[str, torch.Tensor], left_out: str
) -> None:
    torch.manual_seed(7)
    model = net()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    (said,) = adopt_weights(model, tensors, "w")
    assert f"left out: {left_out}" in said
    assert torch.equal(model[0].weight, net()[0].weight)


def test_three_of_each_kind_are_shown() -> None:
    tensors = {f"0.extra{i}": torch.zeros(1) for i in range(5)} | {"3.weight": torch.zeros(5, 2)}
    with pytest.raises(ArtifactError) as caught:
        adopt_weights(net(), tensors, "w")
    message = caught.value.message
    assert message.count("is missing") == 3
    assert message.count("is unexpected") == 3
    assert "3.weight is [5, 2]" in message


def test_which_of_two_state_dicts_is_said(tmp_path: Path) -> None:
    torch.save({"model_ema": named(""), "model": named("")}, tmp_path / "w.pth")
    said: list[str] = []
    load_weights(tmp_path / "w.pth", say=said.append)
    assert [text.rpartition("w.pth: ")[2] for text in said] == [
        "the weights under model are taken, not those under model_ema"
    ]


def test_torchscript_and_quantised_are_called_by_their_names(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(net().eval(), torch.zeros(1, 1, 3, 3)), tmp_path / "s.pt")
    assert "torch.jit.load" in refused(tmp_path / "s.pt", "TorchScript code").hint
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    torch.save({"0.weight": quantised}, tmp_path / "q.pth")
    refused(tmp_path / "q.pth", "0.weight is quantised")


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

"""model.json and model.safetensors: exact, also of cut networks; an error where they disagree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.schema import ModelConfig
from pipeline.errors import ArtifactError, UsageError
from pipeline.models import build_model, load_model, save_model, source_of
from pipeline.run import store

OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.width = 8
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.GroupNorm(2, 8)
        self.out = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).reshape(len(x), self.width, -1).mean(2))
"""


@pytest.fixture
def resnet() -> nn.Module:
    torch.manual_seed(0)
    net = build_model(
        ModelConfig(source="resnet20", kwargs={"width": 8}), in_channels=3, num_classes=4
    ).eval()
    return randomised(net)


def randomised(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def halve_inside(block: nn.Module) -> None:
    """Cut the channels between the two convolutions of a ResNet block to their even half."""
    keep = torch.arange(0, block.conv1.out_channels, 2)
    block.conv1.weight = nn.Parameter(block.conv1.weight[keep].clone())
    block.conv1.out_channels = block.conv2.in_channels = block.bn1.num_features = len(keep)
    block.conv2.weight = nn.Parameter(block.conv2.weight[:, keep].clone())
    for name in ("weight", "bias"):
        setattr(block.bn1, name, nn.Parameter(getattr(block.bn1, name)[keep].clone()))
    for name in ("running_mean", "running_var"):
        setattr(block.bn1, name, getattr(block.bn1, name)[keep].clone())


def image(size: int = 12) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_cut_network_comes_back_bit_for_bit(resnet: nn.Module, tmp_path: Path) -> None:
    halve_inside(resnet.layer2[1])
    record = save_model(resnet, tmp_path / "m", input_shape=(3, 12, 12))
    assert record.widths["layer2.1.conv1.weight"] == (8, 16, 3, 3)
    assert record.attributes == {
        "layer2.1.conv1": {"out_channels": 8},
        "layer2.1.bn1": {"num_features": 8},
        "layer2.1.conv2": {"in_channels": 8},
    }
    loaded = load_model(tmp_path / "m")
    assert torch.equal(loaded(image()), resnet(image()))
    assert not loaded.training
    assert source_of(loaded) == source_of(resnet)


def test_channels_last_layout_is_kept(tmp_path: Path) -> None:
    net = build_model(
        ModelConfig(source="mobilenet_v2", kwargs={"width_mult": 0.25}),
        in_channels=1,
        num_classes=3,
    )
    net.to(memory_format=torch.channels_last)
    save_model(net, tmp_path)
    strides = {name: p.stride() for name, p in net.named_parameters()}
    assert {name: p.stride() for name, p in load_model(tmp_path).named_parameters()} == strides


def test_same_model_gives_the_same_bytes(resnet: nn.Module, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_model(resnet, tmp_path / folder)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_fresh_process_own_model_and_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_model_file.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    from own_model_file import Net

    net = Net().eval()
    keep = [0, 1, 4, 5]
    net.conv.weight = nn.Parameter(net.conv.weight[keep].clone())
    net.norm.weight, net.norm.bias = (
        nn.Parameter(p[keep].clone()) for p in (net.norm.weight, net.norm.bias)
    )
    net.out.weight = nn.Parameter(net.out.weight[:, keep].clone())
    net.conv.out_channels = net.norm.num_channels = net.out.in_features = net.width = 4
    record = save_model(net, tmp_path / "own", source="own_model_file:Net")
    assert record.attributes[""] == {"width": 4}
    tv = build_model(
        ModelConfig(source="torchvision:squeezenet1_1"), in_channels=3, num_classes=5
    ).eval()
    save_model(tv, tmp_path / "tv")
    x = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    store.write_tensors(tmp_path / "want.safetensors", {"x": x, "own": net(x), "tv": tv(x)})
    check = (
        "import torch; from pathlib import Path\n"
        "from pipeline.run import store; from pipeline.models import load_model\n"
        "want = store.read_tensors(Path('want.safetensors'))\n"
        "for name in ('own', 'tv'):\n"
        "    assert torch.equal(load_model(name)(want['x']), want[name]), name\n"
        "print('equal')"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "equal\n", done.stderr


def test_tied_weights_stay_tied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "from torch import nn\n"
        "def tied():\n"
        "    a = nn.Linear(3, 3)\n"
        "    return nn.Sequential(a, nn.ReLU(), a)\n"
    )
    (tmp_path / "own_tied_file.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    net = build_model(ModelConfig(source="own_tied_file:tied"), in_channels=3, num_classes=3)
    record = save_model(net, tmp_path / "m")
    assert record.weights.tensors == 2
    loaded = load_model(tmp_path / "m")
    assert loaded[0].weight is loaded[2].weight
    assert torch.equal(loaded[0].weight, net[0].weight)


def test_float64_stays_float64(resnet: nn.Module, tmp_path: Path) -> None:
    save_model(resnet.double(), tmp_path)
    assert load_model(tmp_path).conv1.weight.dtype == torch.float64


def test_building_leaves_the_callers_random_state(resnet: nn.Module, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    save_model(resnet, tmp_path)
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_save_needs_a_source_that_builds_this_network(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source is known"):
        save_model(nn.Linear(2, 2), tmp_path)
    with pytest.raises(ArtifactError, match="builds another network"):
        save_model(nn.Linear(2, 2), tmp_path, source="resnet20")
    assert not list(tmp_path.iterdir())


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestDamage:
    """Every fault is an ArtifactError that names the file."""

    @pytest.fixture
    def folder(self, resnet: nn.Module, tmp_path: Path) -> Path:
        save_model(resnet, tmp_path)
        return tmp_path

    def refused(self, folder: Path, match: str) -> ArtifactError:
        with pytest.raises(ArtifactError, match=match) as caught:
            load_model(folder)
        return caught.value

    def test_one_flipped_bit(self, folder: Path) -> None:
        data = bytearray((folder / "model.safetensors").read_bytes())
        data[-5] ^= 1
        (folder / "model.safetensors").write_bytes(data)
        self.refused(folder, "sha256 mismatch")

    def test_other_widths_list_three_mismatches(self, folder: Path) -> None:
        edit(folder / "model.json", kwargs={"width": 16})
        error = self.refused(
            folder, r"disagree: conv1\.weight is \[8, 3, 3, 3\], expected \[16, 3, 3, 3\]"
        )
        assert error.message.count("expected") == 3
        assert "more" in error.message

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"schema_version": 2}, "schema version 2"),
            ({"kind": "plan"}, "not a model file"),
            ({"widths": {"conv1.weight": [-1]}}, "widths"),
            ({"surplus": 1}, "surplus"),
            ({"source": "subprocess:run", "kwargs": {"args": ["false"]}}, "Python's own"),
            ({"source": "no_such_module_here:net"}, "no module"),
            ({"attributes": {"conv1": {"not_there": 3}}}, "no whole-number attribute"),
            ({"attributes": {"conv1": {"kernel_size": 3}}}, "no whole-number attribute"),
            ({"attributes": {"nowhere": {"groups": 3}}}, "no whole-number attribute"),
        ],
    )
    def test_edited_model_json(self, folder: Path, changes: dict[str, object], match: str) -> None:
        edit(folder / "model.json", **changes)
        self.refused(folder, match)

    def test_not_json_or_missing(self, folder: Path) -> None:
        (folder / "model.json").write_text("{")
        self.refused(folder, "not valid JSON")
        (folder / "model.json").unlink()
        self.refused(folder, r"model\.json")

    def test_nan(self, resnet: nn.Module, folder: Path) -> None:
        with torch.no_grad():
            resnet.linear.weight[0, 0] = float("nan")
        with pytest.raises(ArtifactError, match=r"NaN or infinity in linear\.weight"):
            save_model(resnet, folder)
        tensors = store.read_tensors(folder / "model.safetensors")
        tensors["linear.weight"][0, 0] = float("inf")
        digest = store.write_tensors(folder / "model.safetensors", tensors)
        record = json.loads((folder / "model.json").read_text())
        edit(folder / "model.json", weights=record["weights"] | {"sha256": digest})
        self.refused(folder, r"NaN or infinity in linear\.weight")

    def test_symlink(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "elsewhere")
        (folder / "model.safetensors").symlink_to("elsewhere")
        self.refused(folder, "not a regular file")

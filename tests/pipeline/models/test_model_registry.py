"""Architectures: the built-in table, torchvision's, the user's own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config.schema import ModelConfig
from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.models import BUILTIN, build_model
from pipeline.models.user_source import source_file

# name: parameters of the network for 3×32×32 and ten classes
PARAMETERS = {
    "mobilenet_v2": 2_236_682,
    "mobilenet_v3": 1_528_106,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "vgg16_bn": 14_724_042,
    "vgg19_bn": 20_035_018,
    "googlenet": 6_158_346,
    "densenet": 769_210,
}


def build(source: str, in_channels: int = 3, num_classes: int = 10, **kwargs: object) -> nn.Module:
    return build_model(
        ModelConfig(source=source, kwargs=kwargs), in_channels=in_channels, num_classes=num_classes
    )


def test_every_builtin_is_listed_here() -> None:
    assert PARAMETERS.keys() == BUILTIN.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_builtin_takes_small_images_of_both_kinds(name: str) -> None:
    net = build(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
    with torch.no_grad():
        assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        assert build(name, in_channels=1, num_classes=4).eval()(
            torch.zeros(1, 1, 28, 28)
        ).shape == (1, 4)


def test_resnet20_has_the_names_of_the_published_weights() -> None:
    names = set(build("resnet20").state_dict())
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer3.2.bn2.bias",
        "linear.bias",
    } <= names
    assert not [name for name in names if "shortcut" in name]


def test_option_a_shortcut_takes_every_second_pixel_and_pads_both_sides() -> None:
    shortcut = build("resnet20").layer2[0].shortcut
    x = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 16, 4, 4)
    out = shortcut(x)
    assert out.shape == (1, 32, 2, 2)
    assert out[0, 8].tolist() == [[0.0, 2.0], [8.0, 10.0]]
    assert out[0, :8].abs().max() == 0
    assert out[0, 24:].abs().max() == 0


def test_option_b_projects() -> None:
    assert "layer2.0.shortcut.0.weight" in build("resnet56", shortcut="B").state_dict()
    with pytest.raises(UsageError, match="shortcut must be A or B"):
        build("resnet20", shortcut="C")


def test_mobilenet_strides() -> None:
    features = build("mobilenet_v2", stem_stride=2, strides=[1, 2, 2, 1, 1, 2, 1]).features
    assert features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (2, 2)
    assert (
        build("mobilenet_v2", strides=[1, 2, 2, 1, 1, 2, 1])
        .features(torch.zeros(1, 3, 32, 32))
        .shape[-1]
        == 4
    )
    with pytest.raises(UsageError, match="strides needs 7"):
        build("mobilenet_v2", strides=[1, 2])


def test_torchvision_by_name_also_for_grey_images() -> None:
    net = build("torchvision:resnet18", in_channels=1, num_classes=7)
    assert net(torch.zeros(2, 1, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("mobilnet_v2", "no such network", "did you mean mobilenet_v2"),
        ("torchvision:resnet81", "no such network", "torchvision:resnet18"),
        ("quux", "no such network", "built in: mobilenet_v2"),
        ("no_such_module_here:net", "no module no_such_module_here", "looked in"),
        ("a b:net", "expected package.module:factory", "my_nets"),
        ("subprocess:run", "Python's own", "another name"),
        ("torch.hub:load", "no factory of networks", "function or class"),
    ],
)
def test_unknown_source(source: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build(source)
    assert hint in caught.value.hint


def test_bad_kwargs_name_the_arguments() -> None:
    with pytest.raises(UsageError, match=r"its factory refuses.*depth=3"):
        build("resnet20", depth=3)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module and a decoy that shadows nothing."""
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def small(num_classes, in_channels=3, width=4):\n"
        "    stem = nn.Conv2d(in_channels, width, 3)\n"
        "    head = nn.Linear(width, num_classes)\n"
        "    return nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)\n"
        "def fixed():\n"
        "    return nn.Conv2d(3, 2, 1)\n"
        "def wrong():\n"
        "    return 'no network'\n"
        "broken = 5\n"
    )
    (tmp_path / "own_broken.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text(
        "raise SystemExit('the decoy was imported')\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_nets", "own_broken"):
        sys.modules.pop(name, None)


def test_own_factory_gets_what_its_signature_takes(own: Path) -> None:
    config = ModelConfig(source="own_nets:small", kwargs={"width": 5})
    net = build_model(config, in_channels=1, num_classes=6, search_path=[own])
    assert net[0].weight.shape == (5, 1, 3, 3)
    assert net[3].out_features == 6
    fixed = build_model(
        ModelConfig(source="own_nets:fixed"), in_channels=3, num_classes=2, search_path=[own]
    )
    assert isinstance(fixed, nn.Conv2d)


def test_own_factory_is_found_in_the_current_folder(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    assert isinstance(build("own_nets:fixed"), nn.Conv2d)
    assert sys.path[-1] == str(own)
    assert source_file("own_nets:fixed") == own / "own_nets.py"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("own_nets:missing", "defines no missing"),
        ("own_nets:broken", "no factory of networks"),
        ("own_nets:wrong", "returned a str"),
        ("own_broken:net", "needs not_installed_anywhere"),
    ],
)
def test_own_factory_mistakes(own: Path, source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(ModelConfig(source=source), in_channels=3, num_classes=2, search_path=[own])


def test_source_file_is_none_for_what_is_not_the_users() -> None:
    assert source_file("mobilenet_v2") is None
    assert source_file("torchvision:resnet18") is None


def test_timm_is_asked_for_this_many_classes_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(
        name: str, num_classes: int, in_chans: int, pretrained: bool, **more: Any
    ) -> Any:
        assert (name, pretrained, more) == ("tinynet", False, {"depth": 1})
        return nn.Conv2d(in_chans, num_classes, 1)

    names = ["tinynet", "largenet"]
    fake = SimpleNamespace(
        is_model=names.__contains__, list_models=lambda: names, create_model=create_model
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    config = ModelConfig(source="timm:tinynet", kwargs={"depth": 1})
    assert build_model(config, in_channels=1, num_classes=7).weight.shape == (7, 1, 1, 1)
    named = ModelConfig(source="timm:tinynet", kwargs={"checkpoint_path": "w.pth"})
    with pytest.raises(UsageError, match="checkpoint_path lets timm read a file"):
        build_model(named, in_channels=1, num_classes=7)
    with pytest.raises(UsageError, match="no such network") as caught:
        build_model(ModelConfig(source="timm:tinynot"), in_channels=1, num_classes=7)
    assert "timm:tinynet" in caught.value.hint


def test_timm_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentProblem, match="timm is not installed"):
        build_model(ModelConfig(source="timm:resnet18"), in_channels=3, num_classes=2)

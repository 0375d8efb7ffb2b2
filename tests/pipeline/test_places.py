"""Weights and images are looked for beside the config, then from here; messages name both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.config.load import build_config
from pipeline.data.sources import open_source
from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.models.weights import adopt_weights, find_weights, with_own_head
from pipeline.places import beside


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder beside the folder of a config."""
    for name in ("config", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_weights_are_found_beside_the_config_then_here(here: Path) -> None:
    (here / "here" / "w.safetensors").touch()
    with beside(here / "config"):
        assert find_weights("w.safetensors").resolve() == here / "here" / "w.safetensors"
        (here / "config" / "w.safetensors").touch()
        assert find_weights("w.safetensors") == here / "config" / "w.safetensors"
        assert find_weights(str(here / "here" / "w.safetensors")).parent == here / "here"
        with pytest.raises(ArtifactError) as caught:
            find_weights("none.safetensors")
        # a broken link is not passed over
        (here / "config" / "link").symlink_to("nowhere")
        (here / "here" / "link").touch()
        assert find_weights("link") == here / "config" / "link"
    for folder in ("config", "here"):
        assert str(here / folder / "none.safetensors") in caught.value.message
    assert find_weights("w.safetensors") == Path("w.safetensors")


def test_images_that_are_nowhere_are_said_with_both_places(here: Path) -> None:
    data = build_config({"data": {"root": "images"}}).data
    with beside(here / "config"), pytest.raises(EnvironmentProblem) as caught:
        open_source(data)
    for folder in ("config", "here"):
        assert str(here / folder / "images") in caught.value.message


def _net(classes: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, classes))


@pytest.mark.parametrize("front", ["", "module."])
def test_weights_of_other_classes_leave_the_networks_own_head(front: str) -> None:
    given = {f"{front}{name}": tensor for name, tensor in _net(5).state_dict().items()}
    model = _net(2)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors, head = with_own_head(model, given)
    assert head == "2"
    adopt_weights(model, tensors, "w")
    assert torch.equal(model.state_dict()["0.weight"], given[f"{front}0.weight"])
    assert torch.equal(model.state_dict()["2.weight"], own["2.weight"])


@pytest.mark.parametrize("other", [_net(2), _net(2, width=5), _net(5, width=5)])
def test_no_head_is_replaced_where_all_fits_or_more_differs(other: nn.Module) -> None:
    given = other.state_dict()
    assert with_own_head(_net(2), given) == (given, "")

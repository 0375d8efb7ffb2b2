"""Weights of colour images for a network of grey ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.errors import ArtifactError
from pipeline.models.weights import adopt_weights


@pytest.mark.parametrize(("ours", "theirs"), [(1, 3), (3, 1)])
def test_the_hint_names_the_channels_of_the_weights(ours: int, theirs: int) -> None:
    own = nn.Sequential(nn.Conv2d(theirs, 4, 3)).state_dict()
    with pytest.raises(ArtifactError, match="does not fit") as caught:
        adopt_weights(nn.Sequential(nn.Conv2d(ours, 4, 3)), own, "w.pth")
    assert f"data.channels={theirs}" in caught.value.hint


@pytest.mark.parametrize(
    "own",
    [
        {"0.weight": torch.zeros(5, 3, 3, 3), "0.bias": torch.zeros(5)},
        {"0.weight": torch.zeros(4, 3, 3, 3)},
        {"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.zeros(5)},
    ],
    ids=["width", "missing too", "another differs too"],
)
def test_other_shapes_say_nothing_of_channels(own: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ArtifactError) as caught:
        adopt_weights(nn.Sequential(nn.Conv2d(1, 4, 3)), own, "w.pth")
    assert "channels" not in caught.value.hint

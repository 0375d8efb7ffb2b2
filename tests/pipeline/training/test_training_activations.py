"""What a network takes for an image, counted on one whose tensors are known."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.training.activations import activations_of


def test_activations_are_counted_once_and_weights_not_at_all() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    image, wide = 4 * 3 * 100, 4 * 8 * 100
    with torch.no_grad():  # whatever the caller is in
        found = activations_of(net, torch.zeros(64, 3, 10, 10)[:2])  # of which only two are seen
    assert (found.kept, found.largest) == (image + wide, wide)
    assert found.learning > found.kept > found.largest
    assert all(parameter.grad is None for parameter in net.parameters())

"""A network, and what is said of weights that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import ArtifactError
from pipeline.models import load_weights


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))


def refused(path: Path, match: str) -> ArtifactError:
    with pytest.raises(ArtifactError, match=match) as caught:
        load_weights(path)
    assert str(path) in caught.value.message
    return caught.value

"""Parameters and buffers of a network by name."""

from __future__ import annotations

import torch
from torch import nn


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by canonical name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}

"""Sum of squared weights over rows that produce a channel and columns that read it;
`rank_channels` takes the root.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def elements(
    model: nn.Module, batches: Any = None, seed: int = 0
) -> tuple[dict[str, torch.Tensor], Any]:
    """Scores of convolution and linear weights."""
    return {
        name: tensor for name, tensor in model.named_parameters() if tensor.dim() > 1
    }, torch.square

"""Independent uniform scores: the control that any criterion has to beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def elements(
    model: nn.Module, batches: Any = None, seed: int = 0
) -> tuple[dict[str, torch.Tensor], Any]:
    """Scores from a generator of their own; the global random state is not used."""
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.rand(tensor.shape, generator=generator)
        for name, tensor in model.named_parameters()
        if tensor.dim() > 1
    }
    return scores, torch.positive

"""Independent uniform scores: the control that any criterion has to beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.importance import unit_sums, weights


def score_units(
    model: nn.Module, graph: ChannelGraph, batches: Any = None, seed: int = 0
) -> dict[str, Tensor]:
    """Sums of one random number a weight, from a generator of their own: the global random state
    is not used.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.rand(weight.shape, generator=generator)
        for name, weight in weights(model).items()
    }
    return unit_sums(graph.slices, scores, torch.positive)  # as they are

"""Sum of absolute weights, over rows that produce a channel and columns that read it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.importance import unit_sums, weights


def score_units(
    model: nn.Module, graph: ChannelGraph, batches: Any = None, seed: int = 0
) -> dict[str, Tensor]:
    """Σ |w| over convolution and linear weights (arXiv 1608.08710)."""
    return unit_sums(graph.slices, weights(model), torch.abs)

"""L2 norm of the weights, over rows that produce a channel and columns that read it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.importance import weight_norms


def score_units(
    model: nn.Module, graph: ChannelGraph, batches: Any = None, seed: int = 0
) -> dict[str, Tensor]:
    """√ Σ w² over convolution and linear weights."""
    return weight_norms(model, graph.slices)

"""Absolute batch-norm scale (network slimming, arXiv 1708.06519)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.importance import unit_sums


def score_units(
    model: nn.Module, graph: ChannelGraph, batches: Any = None, seed: int = 0
) -> dict[str, Tensor]:
    """Σ |γ| over batch and instance norms; groups without one are left out."""
    scales: dict[str, Tensor] = {
        f"{path}.weight" if path else "weight": module.weight
        for path, module in model.named_modules()
        if isinstance(module, _NormBase) and module.weight is not None
    }
    return unit_sums(graph.slices, scales, torch.abs)

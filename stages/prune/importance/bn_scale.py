"""Absolute batch-norm scale (network slimming, arXiv 1708.06519); groups without batch norm
fall back to L2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def elements(
    model: nn.Module, batches: Any = None, seed: int = 0
) -> tuple[dict[str, torch.Tensor], Any]:
    """Scores of batch-norm and instance-norm scales."""
    scales: dict[str, torch.Tensor] = {
        f"{path}.weight" if path else "weight": module.weight
        for path, module in model.named_modules()
        if isinstance(module, _NormBase) and module.weight is not None
    }
    return scales, torch.abs

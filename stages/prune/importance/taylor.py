"""First-order Taylor: Σ |w · ∂L/∂w| over calibration batches.

arXiv 1906.10771; also the criterion of RL-Pruner, arXiv 2411.06463.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pipeline.errors import UsageError
from stages.trace.capture.model_state import mode


def elements(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]] | None, seed: int = 0
) -> tuple[dict[str, torch.Tensor], Any]:
    """Scores of all parameters, from the cross-entropy in eval mode; `.grad` is neither read
    nor written.
    """
    if batches is None:
        raise UsageError(
            "taylor importance needs calibration batches", hint="pass batches=[(images, labels), …]"
        )
    parameters = dict(model.named_parameters())
    trainable = {name: parameter.requires_grad for name, parameter in parameters.items()}
    scores = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    device = next(iter(parameters.values())).device
    try:
        model.requires_grad_(True)
        with mode(model, False), torch.enable_grad():
            for images, labels in batches:
                loss = functional.cross_entropy(model(images.to(device)), labels.to(device))
                gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                    if gradient is not None:
                        scores[name] += (parameter.detach() * gradient).abs()
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(trainable[name])
    return scores, torch.positive

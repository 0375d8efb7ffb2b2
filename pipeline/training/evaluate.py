"""Scoring a network on images, and fitting its batch-norm statistics to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # all dimensions and the synchronised one

from pipeline.modes import mode
from pipeline.training.machine import autocast

if TYPE_CHECKING:
    from pipeline.data.images import Images


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter; the CPU for a network without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def accuracy(
    model: nn.Module,
    images: Images,
    batch_size: int = 256,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> float:
    """Top-1 accuracy as a fraction of all `images`, in eval mode; the model is left as it was."""
    return share(named_right(model, images, batch_size, precision=precision))


def named_right(
    model: nn.Module,
    images: Images,
    batch_size: int = 256,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Tensor:
    """Which of `images` the model names correctly, in order: (N,) bool on the CPU."""
    device = device_of(model)
    right = [torch.zeros(0, dtype=torch.bool, device=device)]
    with mode(model, False), torch.inference_mode(), autocast(device, precision):
        for x, y in images.batches(batch_size):
            right.append(model(x.to(device)).argmax(1) == y.to(device))
    return torch.cat(right).cpu()


def share(right: Tensor) -> float:
    """The fraction of (N,) that is true; 0 of none."""
    return int(right.sum()) / max(1, len(right))


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """Batch norms with running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def reestimate_batchnorm(model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...]]) -> None:
    """Replace running mean and variance of every batch norm by the plain average over `batches`.

    Weights, modes and momenta stay as they were; only batch norms see training mode, not dropout.

    Args:
        batches: x (B, C, H, W), or tuples that begin with it; without any batch nothing changes.
    """
    norms = norms_of(model)
    device = device_of(model)
    momenta = [norm.momentum for norm in norms]
    fresh = True
    with mode(model, False), torch.no_grad():
        for norm in norms:
            norm.momentum = None  # torch then averages over all batches alike
            norm.train()
        try:
            for batch in batches:
                if fresh:
                    for norm in norms:
                        # and the count that the plain average divides by
                        norm.reset_running_stats()
                    fresh = False
                model((batch if isinstance(batch, Tensor) else batch[0]).to(device))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

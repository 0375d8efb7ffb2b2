"""First-order Taylor: Σ |w · ∂L/∂w| over calibration batches.

arXiv 1906.10771; also the criterion of RL-Pruner, arXiv 2411.06463.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.importance import unit_sums
from pipeline.errors import UsageError
from pipeline.modes import mode
from pipeline.training.activations import activations_of

MAX_BYTES = 4 << 30  # of activations: at 224 px a batch of 256 takes a ResNet-50 thirty gigabytes


def score_units(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[tuple[Tensor, Tensor]] | None,
    seed: int = 0,
    *,
    max_bytes: int = MAX_BYTES,
) -> dict[str, Tensor]:
    """Scores of all parameters, from the cross-entropy in eval mode; `.grad` is neither read nor
    written.

    Args:
        max_bytes: of activations, about. The gradient of a batch that takes more is summed over
            parts of it: the same but for round-off, as images do not see each other in eval mode.
    Raises:
        UsageError: no batches.
    """
    if batches is None:
        raise UsageError(
            "taylor importance needs calibration batches", hint="pass batches=[(images, labels), …]"
        )
    parameters = dict(model.named_parameters())
    scores = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    device = next(iter(parameters.values())).device
    with _all_trainable(parameters), mode(model, False), torch.enable_grad():
        most = None
        for images, labels in batches:
            if most is None:
                each = activations_of(model, images[:2].to(device)).learning
                most = max(1, max_bytes // max(1, each))
            gradients = _gradients(model, list(parameters.values()), images, labels, most)
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                if gradient is not None:
                    scores[name] += (parameter.detach() * gradient).abs()
    return unit_sums(graph.slices, scores, torch.positive)  # as they are


def _gradients(
    model: nn.Module, parameters: Sequence[Tensor], images: Tensor, labels: Tensor, most: int
) -> list[Tensor | None]:
    """Of the mean loss of a batch, seen in parts of at most `most` images."""
    device = parameters[0].device
    total: list[Tensor | None] = [None] * len(parameters)
    for x, y in zip(images.split(most), labels.split(most), strict=True):
        loss = functional.cross_entropy(model(x.to(device)), y.to(device))
        if len(x) < len(images):
            loss = loss * (len(x) / len(images))
        # not backward(): `.grad` is the caller's
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        total = [_sum(before, new) for before, new in zip(total, found, strict=True)]
    return total


def _sum(before: Tensor | None, new: Tensor | None) -> Tensor | None:
    if before is None or new is None:
        return before if new is None else new
    return before + new  # not in place: autograd may have given one tensor twice


@contextmanager
def _all_trainable(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    trainable = {name: parameter.requires_grad for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(trainable[name])

"""First-order Taylor: Σ |w · ∂L/∂w| over calibration batches.

arXiv 1906.10771; also the criterion of RL-Pruner, arXiv 2411.06463.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.importance import unit_sums
from pipeline.errors import UsageError
from pipeline.modes import mode


def score_units(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[tuple[Tensor, Tensor]] | None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Scores of all parameters, from the cross-entropy in eval mode; `.grad` is neither read nor
    written.

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
        for images, labels in batches:
            loss = functional.cross_entropy(model(images.to(device)), labels.to(device))
            # not backward(): `.grad` is the caller's
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                if gradient is not None:
                    scores[name] += (parameter.detach() * gradient).abs()
    return unit_sums(graph.slices, scores, torch.positive)  # as they are


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

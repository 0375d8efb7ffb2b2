"""Running a network without leaving a trace of it: its mode, attributes and random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def canonical_names(model: nn.Module) -> dict[str, str]:
    """{every name of a parameter or buffer: the first name of the same tensor}."""
    first: dict[int, str] = {}
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put every module into eval or training mode and back into its own."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, was in before.items():
            module.training = was


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put back attributes that forward sets on its modules, and torch's random state."""
    random = torch.get_rng_state()
    before = [(module, dict(module.__dict__)) for module in model.modules()]
    try:
        yield
    finally:
        torch.set_rng_state(random)
        for module, attributes in before:
            now = module.__dict__
            if now.keys() != attributes.keys() or any(
                now[key] is not value for key, value in attributes.items()
            ):
                module.__dict__.clear()
                module.__dict__.update(attributes)

"""The modules and tensors of a network by name, from one walk through it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn


class Inventory:
    """What `named_modules`, `named_parameters` and `named_buffers` say, each thing once.

    Attributes:
        modules: by path. paths: {id of a module: path}.
        parameters, buffers: by canonical name. stored: both.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(named_modules(model))
        self.paths = {id(module): path for path, module in self.modules.items()}
        self.parameters: dict[str, torch.Tensor] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        seen: set[int] = set()
        for path, module in self.modules.items():
            prefix = f"{path}." if path else ""
            for names, found in (
                (module._parameters, self.parameters),
                (module._buffers, self.buffers),
            ):
                for name, tensor in names.items():
                    if tensor is not None and id(tensor) not in seen:
                        seen.add(id(tensor))
                        found[prefix + name] = tensor

    @property
    def stored(self) -> dict[str, torch.Tensor]:
        """Parameters, then buffers."""
        return {**self.parameters, **self.buffers}

    def replaced(self, tensors: Mapping[int, torch.Tensor]) -> Inventory:
        """The same network with other tensors, {id of the old: new}."""
        new = copy.copy(self)
        new.parameters, new.buffers = (
            {name: tensors[id(tensor)] for name, tensor in found.items()}
            for found in (self.parameters, self.buffers)
        )
        return new

    def attribute(self, tensor: torch.Tensor) -> str:
        """The name of a tensor that is kept as a plain attribute; "" when it is none."""
        for path, module in self.modules.items():
            # getattr would run properties of the user's
            for name, value in module.__dict__.items():
                if value is tensor:
                    return f"{path}.{name}" if path else name
        return ""


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """As `nn.Module.named_modules`, which passes each module up through all that are around it."""
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        prefix = f"{path}." if path else ""
        inside = [
            (prefix + name, child) for name, child in module._modules.items() if child is not None
        ]
        waiting += reversed(inside)

"""Residual branches that may go altogether, and the modules that stand in for them.

    x ─────────────────────────────▶ + ─▶          x ────────────────────────────▶ + ─▶
    └─▶ conv1 ▶ norm ▶ conv2 ▶ norm2 ─┘            └─▶ 0 ─▶ 0 ─▶ 0 ─▶ zeros ───────┘

The sum is then the trunk alone. The user's forward still calls every module of the branch, so each
gets a stand-in that gives zeros: the last ones of the size of what they add, the others of their
input's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn


class Ending(NamedTuple):
    """A module of a branch whose output becomes zeros.

    Attributes:
        stride: of the zeros against its input, () where they are as large.
        parameter, dim: whose length is the number of channels, "" where the input has as many.
    """

    module: str
    stride: tuple[int, ...] = ()
    parameter: str = ""
    dim: int = 0


@dataclass(frozen=True)
class Branch:
    """One operand of an addition that nothing else reads.

    Attributes:
        id: the module in which the addition runs, or else the last one of the branch.
        groups: channel groups whose slices all lie in modules that go.
        modules: paths of the modules that go, with all that is in them.
        endings: those of them that what is added comes from.
        silent: parameters that are zero where the branch is silenced, not removed.
        reason: why it must stay; "" where it may go.
    """

    id: str
    groups: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    endings: tuple[Ending, ...] = ()
    silent: tuple[str, ...] = ()
    reason: str = ""

    @property
    def removable(self) -> bool:
        """Whether a plan may drop it."""
        return not self.reason

    def holds(self, name: str) -> bool:
        """Whether a module, or a tensor by its name, lies in what goes."""
        return name in self.modules or name.startswith(self._inside)

    @cached_property
    def _inside(self) -> tuple[str, ...]:
        return tuple(f"{path}." for path in self.modules)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what is empty is left out."""
        named = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in named if value}


def branch_from_json(entry: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Branch:
    """Inverse of `Branch.to_dict`.

    Raises:
        KeyError, TypeError, ValueError, IndexError: the entry is malformed, or names a dimension
            that no parameter of these shapes has.
    """
    endings = [
        Ending(str(path), tuple(map(int, stride)), str(parameter), int(dim))
        for path, stride, parameter, dim in entry.get("endings", ())
    ]
    for ending in endings:
        if min(ending.stride, default=1) < 1 or (
            ending.parameter and not shapes[ending.parameter][ending.dim]
        ):
            raise ValueError(f"{ending.module} cannot give zeros of that shape")
    groups, modules, silent = (
        tuple(map(str, entry.get(key, ()))) for key in ("groups", "modules", "silent")
    )
    reason = str(entry.get("reason", ""))
    return Branch(str(entry["id"]), groups, modules, tuple(endings), silent, reason)


class Zeros(nn.Module):
    """Zeros, of the shape that the branch had.

    New ones each time: what follows may write into them, and must not write into the trunk.

    Args:
        channels: of the zeros; 0: as many as the input has.
        stride: of the zeros against the input, one entry a dimension of space; (): as large.
    """

    def __init__(self, channels: int = 0, stride: Sequence[int] = ()) -> None:
        super().__init__()
        self.channels, self.stride = channels, tuple(stride)

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if not self.channels:
            return torch.zeros_like(x)
        strides = self.stride or (1,) * (x.dim() - 2)
        space = [-(-size // step) for size, step in zip(x.shape[2:], strides, strict=True)]
        return x.new_zeros((x.shape[0], self.channels, *space))


StandIn = tuple[int, tuple[int, ...]]
"""Channels and stride of `Zeros`."""


def put_in_place(model: nn.Module, stand_ins: Mapping[str, StandIn]) -> nn.Module:
    """Replace modules of `model` by zeros, by path, in place; returns the model.

    Raises:
        AttributeError: a path that names no module.
    """
    return replace_modules(model, {path: Zeros(*zeros) for path, zeros in stand_ins.items()})


def replace_modules(model: nn.Module, others: Mapping[str, nn.Module]) -> nn.Module:
    """Put other modules into the places of those at these paths, and return the model."""
    by_id = {
        id(model.get_submodule(path)): other.train(model.training) for path, other in others.items()
    }
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and id(child) in by_id:
                module._modules[name] = by_id[id(child)]  # it may have several names
    return model


def stand_ins_of(model: nn.Module) -> dict[str, StandIn]:
    """What `put_in_place` has put into a network."""
    return {
        path: (module.channels, module.stride)
        for path, module in model.named_modules()
        if isinstance(module, Zeros)
    }

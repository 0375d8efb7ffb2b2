"""Everything a network holds, as a table of comparable values: what `trace` must leave alone."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import nn

Snapshot = dict[str, Any]


def snapshot(model: nn.Module) -> Snapshot:
    """{place: value} for every module under each of its names, and for the random state.

    Tensors count by identity, type, shape, strides and bytes; containers by their contents; other
    objects by their attributes, or by identity where they have none.
    """
    table: Snapshot = {"random state": _random_state()}
    for path, module in model.named_modules(remove_duplicate=False):
        table[f"{path or 'model'}: identity"] = (id(module), type(module))
        for name, value in vars(module).items():
            table[f"{path or 'model'}.{name}"] = _value(value, ())
    return table


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """Places that were added, lost or changed, in the order they are met."""
    return [
        place
        for place in dict.fromkeys([*before, *after])
        if before.get(place, _ABSENT) != after.get(place, _ABSENT)
    ]


_ABSENT = object()


def _value(value: Any, inside: tuple[int, ...]) -> Any:
    """A value that compares; `inside` names the objects around it, since they may be circular."""
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return value
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, (nn.Module, type)) or id(value) in inside:
        return type(value), id(value)
    inside = (*inside, id(value))
    if isinstance(value, dict):
        return type(value), [(_value(k, inside), _value(v, inside)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [_value(item, inside) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(_value(item, inside)) for item in value)
    if isinstance(value, float):
        return repr(value)  # NaN is the same before and after
    held = getattr(value, "__dict__", None)
    if not held or callable(value):
        return type(value), id(value)
    return type(value), [(name, _value(item, inside)) for name, item in held.items()]


def _tensor(tensor: torch.Tensor) -> tuple[Any, ...]:
    described = (
        id(tensor), type(tensor), tensor.dtype, tensor.device, tuple(tensor.shape),
        tensor.stride(), tensor.requires_grad, tensor.grad is None,
    )  # fmt: skip
    if tensor.is_meta:
        return (*described, "no data")
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return (*described, hashlib.blake2b(data).hexdigest())


def _random_state() -> tuple[Any, ...]:
    kind, keys, *position = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), kind, str(keys), position

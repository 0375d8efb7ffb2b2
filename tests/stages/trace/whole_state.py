"""Everything there is to know about a network, to compare before and after."""

from __future__ import annotations

import functools
import random
import zlib
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy


def whole_state(model: nn.Module) -> Any:
    """Nested tuples: identity and content of all it reaches, and the random generators."""
    generators = (
        zlib.crc32(torch.get_rng_state().numpy().tobytes()),
        hash(random.getstate()),
        zlib.crc32(np.random.get_state()[1].tobytes()),
    )
    return generators, _state(model, {})


def _state(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if id(value) in seen:
        return "seen", id(value)
    seen[id(value)] = value
    if isinstance(value, dict):
        return id(value), [(key, _state(item, seen)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)) or type(value).__name__ == "deque":
        return id(value), [_state(item, seen) for item in value]
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, FunctionType):
        return id(value), [_state(cell.cell_contents, seen) for cell in value.__closure__ or ()]
    if isinstance(value, functools.partial):
        return id(value), _state(value.args, seen)
    if isinstance(value, nn.Module) or type(value).__module__.startswith(("test_", "small_nets")):
        return id(value), _state(vars(value), seen)
    return repr(value)


def _tensor(value: torch.Tensor) -> Any:
    if value.is_meta or is_lazy(value):
        return type(value), id(value), () if is_lazy(value) else tuple(value.shape)
    data = value.detach().cpu().contiguous().view(-1)
    content = zlib.crc32(data.view(torch.uint8).numpy().tobytes()) if data.numel() else 0
    return id(value), value.requires_grad, value.dtype, tuple(value.shape), value.stride(), content

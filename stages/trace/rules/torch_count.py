"""Multiplications of operators that no rule here takes apart, such as a GRU, told by torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stages.trace.propagate.label_values import Activation, Argument, Bound, Parameter


def torch_count(target: Any, bound: Bound) -> int:
    """Multiply-accumulates of one call at the shapes of its arguments; 0 where torch counts none,
    and where the call cannot be made again from shapes alone.

    The call is made on meta tensors, where nothing is fused: torch does not see into the LSTM of
    its CPU kernels.
    """
    if not isinstance(target, torch._ops.OpOverload):
        return 0
    arguments = target._schema.arguments
    args = [_meta(bound[item.name]) for item in arguments if not item.kwarg_only]
    kwargs = {item.name: _meta(bound[item.name]) for item in arguments if item.kwarg_only}
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            target(*args, **kwargs)
    except Exception:  # an index must be an integer, a size must fit: such calls multiply nothing
        return 0
    return counter.get_total_flops() // 2  # torch counts additions too


def _meta(value: Argument) -> Any:
    if isinstance(value, (Activation, Parameter)):
        learned = isinstance(value, Parameter) and not value.buffer  # decides how matmul folds
        return torch.empty(value.shape, device="meta", requires_grad=learned)
    if isinstance(value, (list, tuple)):
        return [_meta(item) for item in value]
    return value

"""What is asked about an ATen operator again and again; PyTorch answers slowly."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


@cache
def operator_name(target: Any) -> str:
    """ "conv2d" for torch.ops.aten.conv2d.default; other libraries keep their namespace."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.partition("::")[2]
        return name if target.namespace == "aten" else f"{target.namespace}::{name}"
    return getattr(target, "__name__", str(target))


@cache
def arguments_of(target: Any) -> tuple[tuple[str, Any], ...]:
    """Names and defaults of the arguments in the schema; none of what is no ATen operator."""
    if not isinstance(target, torch._ops.OpOverload):
        return ()
    return tuple((item.name, item.default_value) for item in target._schema.arguments)


@cache
def writes(target: Any) -> bool:
    """Whether an ATen operator writes into one of its arguments."""
    return target._schema.is_mutable


@cache
def aliases(target: Any) -> bool:
    """Whether the result of an ATen operator shares memory with its first argument."""
    return target._schema.arguments[0].alias_info is not None


@cache
def is_foreign(target: Any) -> bool:
    """Whether an operator is of another library than ATen."""
    return target.namespace != "aten"


@cache
def draws(target: Any) -> bool:
    """Whether an operator uses a random generator."""
    return torch.Tag.nondeterministic_seeded in target.tags


@cache
def returns_list(target: Any) -> bool:
    """True for ATen operators whose result is read through getitem."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    returned = target._schema.returns
    kind = str(returned[0].type) if len(returned) == 1 else "List"
    return "[]" in kind or kind.startswith("List")

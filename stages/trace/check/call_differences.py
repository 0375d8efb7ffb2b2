"""How one run of a network differs from another, call by call."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from stages.trace.capture.calls import Call, Ref

# arguments that count channels wherever an operator has them; all other whole numbers (strides,
# kernels, shifts, dimensions) must be those of the whole network
_COUNTS = frozenset(
    {"groups", "num_groups", "normalized_shape", "size", "shape", "sizes", "split_size",
     "split_sizes", "indices", "sections", "start", "end", "length", "pad", "repeats"}
)  # fmt: skip


def other_path(expected: Call, call: Call) -> str:
    """Why `call` is not the same step of forward; "" when it is, whatever its sizes."""
    if (expected.target, expected.line) != (call.target, call.line):
        return f"takes another path, {call.name} for {expected.name}"
    if expected.refs != call.refs:
        return f"{call.name} reads another tensor"
    return ""


def other_number(expected: Call, call: Call) -> str:
    """Which number of `call` depends on a width; "" when none does."""
    if not isinstance(call.target, torch._ops.OpOverload):
        return ""
    if expected.args == call.args and expected.kwargs == call.kwargs:  # most of them
        return ""
    for position, name in _uncounted(call.target):
        before, after = _given(expected, position, name), _given(call, position, name)
        if before is after or isinstance(before, Ref):  # Refs: `other_path` compares them
            continue
        for one, other in zip(_numbers(before), _numbers(after), strict=False):
            if one != other:
                return f"uses a number that depends on the width: {one} becomes {other}"
    return ""


def other_blocks(expected: Call, call: Call) -> str:
    """How a group norm runs over blocks of another size, which values may hide; "" if it does not.

    With 4 groups of 4 channels and one block cut, `F.group_norm(y, 4)` runs over 3 channels each.
    """
    if call.name != "group_norm":
        return ""
    before, after = map(_block, (expected, call))
    return "" if before == after else f"runs over blocks of {after:g} channels, not {before:g}"


def _block(call: Call) -> float:
    groups = call.args[1] if len(call.args) > 1 else call.kwargs["num_groups"]
    return (call.shapes[0] or (0, 0))[1] / groups


@cache
def _uncounted(target: torch._ops.OpOverload) -> tuple[tuple[int, str], ...]:
    """Positions and names of the arguments that count no channels."""
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(target._schema.arguments)
        # ints alone: the indices of `tensor_split` count channels, those of `x[i]` are tensors
        if not (argument.name in _COUNTS and "int" in str(argument.type))
    )


def _given(call: Call, position: int, name: str) -> Any:
    return call.args[position] if position < len(call.args) else call.kwargs.get(name)


def _numbers(value: Any) -> list[Any]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in values if type(item) in (bool, int, float)]

"""What the code of a forward may do with sizes, read from its bytecode."""

from __future__ import annotations

import dis
from collections.abc import Iterable
from functools import cache
from types import CodeType

# a name too many costs two more cuts; one too few, a branch that no cut takes
_SIZES = frozenset(
    {
        "shape", "size", "numel", "nelement", "len", "in_channels", "out_channels", "in_features",
        "out_features", "num_features", "groups", "num_groups",
    }
)  # fmt: skip
_ROUNDED = frozenset({"int", "round", "ceil", "floor", "min", "max", "gcd", "divmod"})


def may_branch_on_sizes(codes: Iterable[CodeType]) -> bool:
    """Whether any of these functions reads a size and compares, rounds or divides anything: what
    it does may then hang on how large a width is, and one cut does not show it.
    """
    return any(_may_branch(code) for code in codes)


@cache
def _may_branch(code: CodeType) -> bool:
    names = {*code.co_names, *code.co_varnames}
    if not names & _SIZES:
        return False
    return bool(names & _ROUNDED) or any(map(_decides, dis.get_instructions(code)))


def _decides(step: dis.Instruction) -> bool:
    if step.opname == "BINARY_OP":
        return step.argrepr.rstrip("=") in ("%", "//")  # of `x //= y` it is "//="
    # by prefix: every version of Python has its own variants of these jumps
    return step.opname.startswith(("COMPARE_OP", "POP_JUMP", "JUMP_IF", "CONTAINS_OP"))

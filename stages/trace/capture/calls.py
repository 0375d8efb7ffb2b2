"""What one run of a network looks like to the labelling: calls of ATen operators, in order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from stages.trace.capture.operators import arguments_of, is_foreign, returns_list, writes


class Ground(Enum):
    """What a network runs on while its calls are noted.

    META: tensors without values or device, the quickest. FAKE: tensors without values that claim a
    device. REAL: tensors. EXPORT: whatever torch.export runs it on.
    """

    META = "meta"
    FAKE = "fake"
    REAL = "real"
    EXPORT = "export"


@dataclass(frozen=True)
class Ref:
    """The result of an earlier call, or an input; `item` picks one of several results."""

    index: int
    item: int | None = None

    @staticmethod
    @cache
    def known(index: int, item: int | None = None) -> Ref:
        """The same object each time: runs of one network are compared call by call, and Python
        asks whether objects are the same before it asks whether they are equal.
        """
        return Ref(index, item)


@dataclass(frozen=True)
class Call:
    """One operator call.

    `args` and `kwargs` are as forward gave them, every tensor replaced by its `Ref`. `shapes` has
    one entry for each result, None for a result that is no tensor. `module` is the path of the
    innermost module that was running, `line` the innermost line of the network's own code.
    """

    index: int
    target: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: tuple[tuple[int, ...] | None, ...]
    module: str
    line: str

    @cached_property
    def refs(self) -> tuple[Ref, ...]:
        """What it reads, in the order of its arguments."""
        leaves = flatten((self.args, self.kwargs))
        return tuple(leaf for leaf in leaves if isinstance(leaf, Ref))

    @cached_property
    def bound(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Arguments by schema name, defaults filled in, and the names of those that hold Refs."""
        known = arguments_of(self.target)
        given = {str(place): value for place, value in enumerate(self.args)}
        if isinstance(self.target, torch._ops.OpOverload):
            positional = dict(zip((name for name, _ in known), self.args, strict=False))
            named = {**self.kwargs, **positional}
            given = {name: named.get(name, default) for name, default in known}
        given = {name: _as_lists(value) for name, value in given.items()}
        holding = (name for name, value in given.items() if _holds_ref(value))
        return given, tuple(holding)

    @cached_property
    def moves(self) -> dict[Any, Any]:
        """Where channels go in it: what a rule finds out once for all labellings."""
        return {}

    @property
    def where(self) -> str:
        """Operator, module path and source line, for reasons."""
        inside = f" in {self.module}" if self.module else ""
        return f"{self.name}{inside} ({self.line})"

    @cached_property
    def site(self) -> str:
        """Source line and operator: what a decision about ambiguous sizes holds for."""
        return f"{self.line} {self.name}"

    def argument(self, name: str) -> Any:
        """What was given for an argument of the operator's schema, or its default."""
        for position, (known, default) in enumerate(arguments_of(self.target)):
            if known == name:
                given = self.args[position : position + 1] or (self.kwargs.get(name),)
                return default if given[0] is None else given[0]
        return None

    @property
    def acts(self) -> bool:
        """Whether it may do more than its results say: it writes, stops or is not PyTorch's."""
        if not isinstance(self.target, torch._ops.OpOverload):
            # torch.cond and the like run whole graphs: anything may happen there
            return self.name != "getitem"
        # the schema of an extension need not tell that it writes
        if is_foreign(self.target) or writes(self.target):
            return True
        # assertions and `item` give no tensor: they stop forward, or decide what it does
        return all(shape is None for shape in self.shapes)

    @property
    def returns_list(self) -> bool:
        """True for operators whose result is read through getitem."""
        return returns_list(self.target)


@dataclass(frozen=True)
class Input:
    """A tensor that exists before the run.

    `kind` is "parameter" (or buffer), "constant" or "input". `numbers` are the elements of a small
    constant.
    """

    index: int
    kind: str
    name: str
    shape: tuple[int, ...] | None
    numbers: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Capture:
    """All calls of a forward pass; `branches` where they may be others at other widths; `written`
    is what its buffers hold afterwards.
    """

    inputs: tuple[Input, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]
    ground: Ground
    written: tuple[Ref, ...] = ()
    branches: bool = True

    @cached_property
    def dead(self) -> frozenset[int]:
        """Positions of calls whose results reach neither an output nor a buffer.

        Calls that write into memory, or whose results are no tensors, are not among them.
        """
        # a buffer is read again by the next forward
        needed = {ref.index for ref in (*self.outputs, *self.written)}
        found = set()
        # backwards: what reads a result comes after it
        for position in reversed(range(len(self.calls))):
            call = self.calls[position]
            if call.index in needed or call.acts:
                needed |= {ref.index for ref in call.refs}
            else:
                found.add(position)
        return frozenset(found)


def tensors_of(output: Any) -> list[torch.Tensor]:
    """All tensors of a nested model output, and its numbers as tensors."""
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, (torch.Tensor, int, float))]
    return [leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf) for leaf in leaves]


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _holds_ref(value: Any) -> bool:
    return isinstance(value, Ref) or (isinstance(value, list) and any(map(_holds_ref, value)))


def flatten(values: Any) -> list[Any]:
    """Leaves of nested lists and dicts, in order."""
    found: list[Any] = []
    _collect(values, found)
    return found


def _collect(values: Any, found: list[Any]) -> None:
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, (list, tuple)):
        found.append(values)
        return
    for value in values:
        # most leaves, without a call for each
        if value is None or type(value) in (int, bool, float):
            found.append(value)
        else:
            _collect(value, found)

"""What one run of a network looks like to the labelling: calls, shapes, module paths, source lines.

Two ways lead there. `record` listens to PyTorch's dispatcher while the model runs on tensors
without values, which takes a fraction of a second. Where it gives up, `exported` asks torch.export,
which is many times slower and has the last word on what can be traced at all. Both see the same
ATen operators.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')


@dataclass(frozen=True)
class Ref:
    """The result of an earlier call, or an input; `item` picks one of several results."""

    index: int
    item: int | None = None


@dataclass(frozen=True)
class Call:
    """One operator call; `shapes` has one entry per tensor result (None for results that are no
    tensor).
    """

    index: int
    target: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: tuple[tuple[int, ...] | None, ...]
    module: str
    line: str

    @property
    def where(self) -> str:
        """Operator, module path and source line, for reasons."""
        inside = f" in {self.module}" if self.module else ""
        return f"{self.name}{inside} ({self.line})"


@dataclass(frozen=True)
class Input:
    """A placeholder: `kind` is "parameter" (or buffer), "constant" or "input"; `numbers` are a
    constant's.
    """

    index: int
    kind: str
    name: str
    shape: tuple[int, ...] | None
    numbers: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Capture:
    """All calls of a forward pass; `heard` by the recorder (not exported), `light` if on meta
    tensors.
    """

    inputs: tuple[Input, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]
    light: bool = False
    heard: bool = True


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


def capture(model: nn.Module, example_inputs: tuple[Any, ...]) -> Capture:
    """The calls of one forward pass in eval mode.

    Raises:
        UsageError: torch.export cannot take the model; names the line of the model that stopped it.
    """
    from stages.trace import exported, record  # both build on this module

    for light in (True, False):
        with contextlib.suppress(
            Exception
        ):  # tensor values used, higher-order operators, another torch
            return record.capture(model, example_inputs, light=light)
    return exported.capture(model, example_inputs)


def operator_name(target: Any) -> str:
    """ "conv2d" for torch.ops.aten.conv2d.default; operators of other libraries keep their
    namespace.
    """
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.partition("::")[2]
        return name if target.namespace == "aten" else f"{target.namespace}::{name}"
    return getattr(target, "__name__", str(target))


def source_line(stack: str) -> str:
    """Innermost frame outside torch, as "package/file.py:line" without the machine's own
    folders.
    """
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(stack)]
    own = [frame for frame in frames if not inside_torch(frame[0])] or frames
    return f"{short_path(own[-1][0])}:{own[-1][1]}" if own else "unknown line"


@lru_cache(maxsize=4096)
def inside_torch(file: str) -> bool:
    """True for PyTorch's own source files."""
    return file.startswith(os.path.dirname(torch.__file__) + os.sep)


@lru_cache(maxsize=4096)
def short_path(file: str) -> str:
    """A source file without the folders that differ from machine to machine."""
    roots = sorted({os.path.abspath(path or ".") for path in sys.path}, key=len, reverse=True)
    for root in roots:
        if file.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(file, root).replace(os.sep, "/")
    return os.path.basename(file)


def flatten(values: Any) -> Iterable[Any]:
    """Leaves of nested lists and dicts."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from flatten(value)
    else:
        yield values

"""Run torch.export once and keep what the labelling needs: calls, shapes, module paths, source lines."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.errors import UsageError

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')


@dataclass(frozen=True)
class Ref:
    """The result of an earlier call, or an input of the graph."""

    index: int


@dataclass(frozen=True)
class Call:
    """One operator call; `shapes` has one entry per tensor result (None for results that are no tensor)."""

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
    """A placeholder: `kind` is "parameter" (or buffer), "constant" or "input"."""

    index: int
    kind: str
    name: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Capture:
    inputs: tuple[Input, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]


def canonical_names(model: nn.Module) -> dict[str, str]:
    """{every name of a parameter or buffer: the first name of the same tensor}."""
    first: dict[int, str] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
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


def capture(model: nn.Module, example_inputs: tuple[Any, ...], *, training: bool = False) -> Capture:
    """Export `model` and translate the graph.

    Raises:
        UsageError: torch.export cannot take the model; names the line of the model that stopped it.
    """
    names = canonical_names(model)
    with mode(model, training), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(model, example_inputs, strict=False)
        except Exception as error:
            raise _refusal(error) from error
    signature = exported.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    index: dict[torch.fx.Node, int] = {}
    inputs, calls, outputs = [], [], ()
    for node in exported.graph.nodes:
        index[node] = len(index)
        if node.op == "placeholder":
            if not node.users and node.name in stored:
                continue  # never used: no operator constrains it
            shape = _shape(node.meta.get("val"))
            if node.name in stored:
                inputs.append(Input(index[node], "parameter", names[stored[node.name]], shape))
            else:
                kind = "constant" if node.name in constants else "input"
                inputs.append(Input(index[node], kind, constants.get(node.name, node.name), shape))
        elif node.op == "call_function":
            calls.append(_call(node, index))
        elif node.op == "output":
            outputs = tuple(_refs(node.args, index))
    return Capture(tuple(inputs), tuple(calls), outputs)


def _call(node: torch.fx.Node, index: dict[torch.fx.Node, int]) -> Call:
    value = node.meta.get("val")
    results = value if isinstance(value, (tuple, list)) else (value,)
    stack = node.meta.get("nn_module_stack") or {}
    module = next(reversed(list(stack.values())), ("", ""))[0]
    target = node.target
    name = target._opname if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))

    def resolve(argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, lambda used: Ref(index[used]))

    return Call(
        index=index[node],
        target=target,
        name=name,
        args=tuple(resolve(node.args)),
        kwargs=dict(resolve(dict(node.kwargs))),
        shapes=tuple(_shape(result) for result in results),
        module=module,
        line=source_line(node.meta.get("stack_trace") or ""),
    )


def _refs(tree: Any, index: dict[torch.fx.Node, int]) -> Iterator[Ref]:
    if isinstance(tree, torch.fx.Node):
        yield Ref(index[tree])
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _refs(item, index)
    elif isinstance(tree, dict):
        yield from _refs(list(tree.values()), index)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else None


def source_line(stack: str) -> str:
    """Innermost frame outside torch, as "package/file.py:line" without the machine's own folders."""
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(stack)]
    own = [frame for frame in frames if not _inside_torch(frame[0])] or frames
    return f"{_short(own[-1][0])}:{own[-1][1]}" if own else "unknown line"


def _inside_torch(file: str) -> bool:
    return file.startswith(os.path.dirname(torch.__file__) + os.sep)


def _short(file: str) -> str:
    roots = sorted({os.path.abspath(path or ".") for path in sys.path}, key=len, reverse=True)
    for root in roots:
        if file.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(file, root).replace(os.sep, "/")
    return os.path.basename(file)


def _refusal(error: Exception) -> UsageError:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _inside_torch(f.filename)]
    frames = [f for f in frames if os.path.abspath(f.filename) != os.path.abspath(__file__)]
    trace = source_line(str(error)) if _FRAME.search(str(error)) else ""
    place = f"{_short(frames[-1].filename)}:{frames[-1].lineno} ({frames[-1].line})" if frames else trace
    what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UsageError(
        f"torch.export cannot take this model, stopped at {place or 'an unknown line'}: {what}",
        hint="forward may not branch on tensor values or leave torch; rewrite that line, e.g. with torch.where",
    )

"""Numbers that stand in generated code: torch.fx and torch.export write them into a graph.

There `y.view(b, 2, c // 2, h, w)` may have become `view(y, [1, 2, 8, 64, 64])`. A number of the
graph can be changed, so each follows what it counts by the reading of its call; numbers that other
nodes compute follow as they would in the user's own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from stages.trace.capture.calls import Call
from stages.trace.capture.source_lines import GENERATED
from stages.trace.propagate.label_values import Activation, Bound, Result, Vector

_SIZES = {
    **dict.fromkeys(("view", "_unsafe_view", "expand", "_reshape_alias"), "size"),
    "reshape": "shape",
    "unflatten": "sizes",
}


class Number(NamedTuple):
    """An argument of a call, or an entry of a list that is one, and the channels it counts."""

    argument: str
    entry: int | None
    labels: Vector


class Graphs:
    """The nodes of every GraphModule of a network, looked up by the calls that they make."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._nodes: dict[str, dict[str, fx.Node]] = {}

    def node(self, call: Call) -> fx.Node | None:
        """The node whose code makes a call; None where that is not generated code."""
        file, _, name = call.line.partition(":")
        module = self._modules.get(call.module)
        if file != GENERATED or not isinstance(module, fx.GraphModule):
            return None
        if call.module not in self._nodes:
            self._nodes[call.module] = {node.name: node for node in module.graph.nodes}
        return self._nodes[call.module].get(name)


def numbers(
    call: Call, bound: Bound, result: Result, parts: Mapping[str, Vector]
) -> Iterator[Number]:
    """What numbers of a call count, given the `attributes.parts` of its reading."""
    for part, labels in parts.items():
        kind, _, entry = part.partition(".")
        if kind in ("start", "end"):
            yield Number(kind, None, labels)
        elif kind == "groups":
            yield Number("num_groups" if call.name == "group_norm" else kind, None, labels)
        elif kind == "sizes":
            yield Number("split_sizes", int(entry), labels)
            yield Number("split_size", None, labels)
    if isinstance(result, Activation) and result.dim is not None:
        if call.name in _SIZES:
            first = bound["dim"] % len(bound.first.shape) if call.name == "unflatten" else 0
            yield Number(_SIZES[call.name], result.dim - first, result.vector)
        elif "length" in bound:
            yield Number("length", None, result.vector)


def place_in_graph(node: fx.Node, call: Call, number: Number) -> str | None:
    """Where a node keeps a number, as `set_widths` addresses it; None where it is not the count."""
    if node.op not in ("call_function", "call_method") or not _has_schema(call):
        return None
    names = [argument.name for argument in call.target._schema.arguments]
    if number.argument not in names:
        return None
    position, entry = names.index(number.argument), number.entry
    given = position < len(node.args)
    value = node.args[position] if given else node.kwargs.get(number.argument)
    where = str(position) if given else number.argument
    if entry is not None:
        value, where = _entry(node, value, where, entry)
    # what another node computes stands nowhere, and -1 is no count
    return f"graph.{node.name}.{where}" if _is_count(value, number.labels) else None


def _entry(node: fx.Node, value: Any, where: str, entry: int) -> tuple[Any, str]:
    if isinstance(value, (list, tuple)):
        return (value[entry] if 0 <= entry < len(value) else None), f"{where}.{entry}"
    position = int(where) + entry if where.isdigit() else -1  # y.view(b, c, h, w)
    inside = node.op == "call_method" and 0 <= position < len(node.args)
    return (node.args[position] if inside else None), str(position)


def _is_count(value: Any, labels: Vector) -> bool:
    return type(value) is int and value == len(labels)


def _has_schema(call: Call) -> bool:
    return isinstance(call.target, torch._ops.OpOverload)

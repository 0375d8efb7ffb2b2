"""A capture from torch.export: the reference for what can be traced, and the fallback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from stages.trace.capture.calls import Call, Capture, Ground, Input, Ref
from stages.trace.capture.model_state import canonical_names, preserved, set_training
from stages.trace.capture.operators import operator_name
from stages.trace.capture.refusals import not_traceable
from stages.trace.capture.source_lines import line_in_text


def by_export(model: nn.Module, example_inputs: tuple[Any, ...]) -> Capture:
    """Export `model` and translate the graph; raises whatever torch.export does.

    Raises:
        UsageError: a size depends on the values of a tensor; names the line that makes it.
    """
    names = canonical_names(model)
    with preserved(model) as snapshot, torch.no_grad():
        snapshot.copy_tensors()  # torch.export writes into tensors that are no buffers
        set_training(model, False)
        # not strict: forward runs in Python, as for `by_dispatch`, and not through Dynamo
        exported = torch.export.export(model, example_inputs, strict=False)
    signature = exported.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    index: dict[torch.fx.Node, int] = {}
    inputs: list[Input] = []
    calls: list[Call] = []
    outputs: tuple[Any, ...] = ()
    for node in exported.graph.nodes:
        index[node] = len(index)
        if node.op == "placeholder":
            if not node.users and node.name in stored:
                continue  # never used: no operator constrains it
            shape = _shape(node, node.meta.get("val"))
            if node.name in stored:
                inputs.append(Input(index[node], "parameter", names[stored[node.name]], shape))
            else:
                kind = "constant" if node.name in constants else "input"
                inputs.append(Input(index[node], kind, constants.get(node.name, node.name), shape))
        elif node.op == "call_function":
            calls.append(_call(node, index))
        elif node.op == "output":
            outputs = tuple(_refs(node.args, index))
    return Capture(tuple(inputs), tuple(calls), outputs, Ground.EXPORT)


def _call(node: torch.fx.Node, index: dict[torch.fx.Node, int]) -> Call:
    value = node.meta.get("val")
    results = value if isinstance(value, (tuple, list)) else (value,)
    stack = node.meta.get("nn_module_stack") or {}
    module = next(reversed(list(stack.values())), ("", ""))[0]
    target = node.target

    def source(used: torch.fx.Node) -> Any:
        # get_attr nodes are the branches of torch.cond and the like: no tensors
        return used.target if used.op == "get_attr" else Ref(index[used])

    def resolve(argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, cast(Any, source))

    return Call(
        index=index[node],
        target=target,
        name=operator_name(target),
        args=tuple(resolve(node.args)),
        kwargs=dict(resolve(dict(node.kwargs))),
        shapes=tuple(_shape(node, result) for result in results),
        module=module,
        line=_line(node),
    )


def _refs(tree: Any, index: dict[torch.fx.Node, int]) -> Iterator[Ref]:
    if isinstance(tree, torch.fx.Node):
        yield Ref(index[tree])
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _refs(item, index)
    elif isinstance(tree, dict):
        yield from _refs(list(tree.values()), index)


def _shape(node: torch.fx.Node, value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, torch.Tensor):
        return None
    if any(isinstance(size, torch.SymInt) for size in value.shape):
        raise not_traceable(f"stopped at {_line(node)}: a size depends on the values of a tensor")
    return tuple(int(size) for size in value.shape)


def _line(node: torch.fx.Node) -> str:
    return line_in_text(node.meta.get("stack_trace") or "")

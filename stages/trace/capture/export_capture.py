"""A capture from torch.export: the reference for what can be traced, and the fallback."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, cast

import torch
from torch import nn

from pipeline.errors import UsageError
from stages.trace.capture.calls import Call, Capture, Ground, Input, Ref, operator_name
from stages.trace.capture.model_state import canonical_names, preserved, set_training
from stages.trace.capture.source_lines import line_in_text, line_of_error, short_path


def by_export(model: nn.Module, example_inputs: tuple[Any, ...]) -> Capture:
    """Export `model` and translate the graph.

    Raises:
        UsageError: torch.export cannot take the model; names the line of the model that stopped it.
    """
    names = canonical_names(model)
    with preserved(model) as snapshot, _quiet(), torch.no_grad():
        snapshot.copy_tensors()  # torch.export writes into tensors that are no buffers
        set_training(model, False)
        try:
            exported = torch.export.export(model, example_inputs, strict=False)
        except Exception as error:
            raise _refusal(error) from error
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
    return Capture(tuple(inputs), tuple(calls), outputs, Ground.EXPORT)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export tells whole graphs to the log and to stderr when it gives up."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _call(node: torch.fx.Node, index: dict[torch.fx.Node, int]) -> Call:
    value = node.meta.get("val")
    results = value if isinstance(value, (tuple, list)) else (value,)
    stack = node.meta.get("nn_module_stack") or {}
    module = next(reversed(list(stack.values())), ("", ""))[0]
    target = node.target

    def resolve(argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, cast(Any, lambda used: Ref(index[used])))

    return Call(
        index=index[node],
        target=target,
        name=operator_name(target),
        args=tuple(resolve(node.args)),
        kwargs=dict(resolve(dict(node.kwargs))),
        shapes=tuple(_shape(result) for result in results),
        module=module,
        line=line_in_text(node.meta.get("stack_trace") or ""),
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


def _refusal(error: Exception) -> UsageError:
    text = str(error).strip()
    frame = line_of_error(error)
    place = line_in_text(text)
    if frame is not None:
        place = f"{short_path(frame.filename)}:{frame.lineno} ({frame.line})"
    what = text.splitlines()[0] if text else type(error).__name__
    return UsageError(
        f"torch.export cannot take this model, stopped at {place}: {what}",
        hint="forward may not branch on tensor values or leave torch; rewrite that line, "
        "e.g. with torch.where",
    )

"""Numbers that stand in generated code: torch.fx and torch.export write them into a graph."""

from __future__ import annotations

import torch
from torch import nn

from stages.trace.capture.calls import Call
from stages.trace.capture.source_lines import GENERATED


def argument_in_graph(module: nn.Module | None, call: Call, name: str) -> str | None:
    """Where the graph of a module keeps a number of a call, as `set_width` addresses it; None where
    the call is not made by generated code.
    """
    file, _, node_name = call.line.partition(":")
    if file != GENERATED or not isinstance(module, torch.fx.GraphModule):
        return None
    node = next((node for node in module.graph.nodes if node.name == node_name), None)
    if node is None or node.op != "call_function":
        return None
    names = [argument.name for argument in call.target._schema.arguments]
    position = names.index(name)
    given = position < len(node.args)
    value = node.args[position] if given else node.kwargs.get(name)
    noted = call.args[position] if position < len(call.args) else call.kwargs.get(name)
    # a number that another node computes stands nowhere
    if type(value) is not int or value != noted:
        return None
    return f"graph.{node_name}.{position if given else name}"

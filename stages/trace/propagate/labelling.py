"""The labelling loop: walk the recorded calls and apply each operator's rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from stages.trace.capture.calls import Call, Capture, Ref
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Activation, Bound, Opaque, Parameter, Value
from stages.trace.propagate.readings import Reading
from stages.trace.rules import rule_for


def label(
    model: nn.Module,
    captures: Iterable[Capture],
    readings: Mapping[str, Reading],
    open_statistics: bool,
) -> Pass:
    """Run the labels through every captured graph of the same model; only the first one's
    operations are counted.
    """
    state = Pass(model, readings, open_statistics)
    for position, captured in enumerate(captures):
        state.counting = position == 0
        values: dict[int, Any] = {}
        for source in captured.inputs:
            values[source.index] = _source(state, source.kind, source.name, source.shape)
            state.touched.add(source.name)
        for call in captured.calls:
            state.call = call
            bound = _bind(call, values)
            if call.name == "getitem":
                values[call.index] = bound["0"][bound["1"]]
            else:
                values[call.index] = rule_for(call)(state, bound)
        for ref in captured.outputs:
            value = values[ref.index] if ref.item is None else values[ref.index][ref.item]
            if isinstance(value, Activation):
                state.labels.freeze(value.vector, "model output")
            elif isinstance(value, Parameter):
                state.labels.pin(value.name, "model output")
    return state


def _source(state: Pass, kind: str, name: str, shape: tuple[int, ...] | None) -> Value:
    if shape is None:
        return Opaque()
    if kind == "parameter":
        return Parameter(name, shape, buffer=name in state.buffers)
    what = (
        f"model input {name}"
        if kind == "input"
        else f"constant tensor {name} is no registered buffer"
    )
    return state.fixed(shape, what)


def _bind(call: Call, values: Mapping[int, Any]) -> Bound:
    """Arguments by schema name, defaults filled in, references resolved to values."""

    def resolve(argument: Any) -> Any:
        if isinstance(argument, Ref):
            value = values[argument.index]
            return value if argument.item is None else value[argument.item]
        if isinstance(argument, (list, tuple)):
            return [resolve(item) for item in argument]
        return argument

    if not isinstance(call.target, torch._ops.OpOverload):
        return Bound((str(i), resolve(argument)) for i, argument in enumerate(call.args))
    bound = Bound()
    for position, argument in enumerate(call.target._schema.arguments):
        if position < len(call.args):
            bound[argument.name] = resolve(call.args[position])
        elif argument.name in call.kwargs:
            bound[argument.name] = resolve(call.kwargs[argument.name])
        else:
            bound[argument.name] = argument.default_value
    return bound

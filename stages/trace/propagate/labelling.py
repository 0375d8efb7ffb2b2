"""The labelling loop: walk the recorded calls and apply each operator's rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stages.trace.capture.calls import Call, Capture, Ref, flatten
from stages.trace.capture.inventory import Inventory
from stages.trace.propagate.attributes import Follow
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import (
    Activation,
    Bound,
    Opaque,
    Parameter,
    Result,
    Value,
    Vector,
)
from stages.trace.propagate.readings import Reading
from stages.trace.propagate.zeros import Zeros
from stages.trace.rules import rule_for


def label(
    inventory: Inventory,
    captures: Iterable[Capture],
    readings: Mapping[str, Reading],
    problems: Mapping[str, str],
    open_statistics: bool,
    follows: Mapping[str, Sequence[Follow]],
) -> Pass:
    """Run the labels through every captured graph of the same model.

    Only the multiplications of the first one are counted.
    """
    state = Pass(inventory, readings, problems, open_statistics, follows)
    for position, captured in enumerate(captures):
        state.counting = position == 0
        values: dict[int, Any] = {}
        state.zeros = Zeros(captured.calls, values)
        for source in captured.inputs:
            values[source.index] = _source(state, source.kind, source.name, source.shape)
            state.touched.add(source.name)
        for place, call in enumerate(captured.calls):
            state.call = call
            # a dead call that does not survive a cut is read as FIXED, and then counts
            state.labels.muted = place in captured.dead and state.reading is not Reading.FIXED
            values[call.index] = _apply(state, _bind(call, values))
        state.labels.muted = False
        state.values.append(
            [
                # nothing is promised of what no output sees
                Opaque() if place in captured.dead else values[call.index]
                for place, call in enumerate(captured.calls)
            ]
        )
        state.shapes.append([call.shapes for call in captured.calls])
        for ref in captured.outputs:
            value = values[ref.index] if ref.item is None else values[ref.index][ref.item]
            if isinstance(value, Activation):
                # its classes are what the caller counts on
                state.labels.freeze(value.vector, "model output")
            elif isinstance(value, Parameter):
                state.pin(value, "model output")
    return state


def _apply(state: Pass, bound: Bound) -> Result:
    """The rule's result; at a FIXED site everything that passes stays."""
    if state.call.name == "getitem":
        return bound["0"][bound["1"]]
    result = rule_for(state.call)(state, bound)
    state.passing.setdefault(state.call.site, []).append((state.call, bound, result))
    state.follow(bound, result)
    state.follow_graph(bound, result)
    touched = [bound, result]
    if state.reading is not Reading.FIXED or not unit_labels(touched).size:
        return result
    problem = state.problems.get(state.call.site, "")
    return state.stuck(touched, f"does not follow the channels: {problem}")


def unit_labels(values: Any) -> Vector:
    """Labels of units in nested values."""
    found = [value.vector for value in flatten(values) if isinstance(value, Activation)]
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *found])
    return labels[labels > 0]


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
    given, read = call.bound
    bound = Bound(given)
    for name in read:
        bound[name] = _resolved(given[name], values)
    return bound


def _resolved(argument: Any, values: Mapping[int, Any]) -> Any:
    if isinstance(argument, Ref):
        value = values[argument.index]
        return value if argument.item is None else value[argument.item]
    return [_resolved(item, values) for item in argument] if type(argument) is list else argument

"""One labelling pass: walk the captured calls, apply each operator's rule, collect what the
labels own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.trace.capture import Call, Capture, Ref, flatten
from stages.trace.labels import Labels
from stages.trace.values import Activation, Opaque, Parameter, Value, Vector


@dataclass
class Use:
    """How often a weight is applied; see `graph.LayerCost`."""

    type: str
    weight: str
    positions: int = 0
    out_dim: int = 0
    in_dim: int = 1
    groups: int = 1
    fixed_macs: int = 0


@dataclass
class Pass:
    """State that the rules see. `choices` says per source line how ambiguous sizes are read
    (see `rules.moves`).
    """

    model: nn.Module
    choices: Mapping[str, str]
    open_statistics: bool = False
    labels: Labels = field(default_factory=Labels)
    uses: dict[str, Use] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    counting: bool = True
    call: Call = field(init=False)

    def __post_init__(self) -> None:
        self.modules = dict(self.model.named_modules())
        self.stored = {name: tuple(tensor.shape) for name, tensor in self.model.named_parameters()}
        self.buffers = {name: tuple(tensor.shape) for name, tensor in self.model.named_buffers()}
        self.stored.update(self.buffers)

    def why(self, text: str) -> str:
        """Reason for the current call: operator, module path, source line, explanation."""
        return f"{self.call.where}: {text}"

    def fixed(self, shape: Iterable[int], reason: str) -> Activation:
        """An activation without units."""
        return Activation(tuple(shape), None, np.array([self.labels.fixed(reason)], dtype=np.int64))

    def stuck(self, values: Any, text: str) -> Any:
        """Freeze everything that arrives, pin parameters, and return fixed results of the
        call's shapes.
        """
        reason = self.why(text)
        for value in flatten(values):
            if isinstance(value, Activation):
                self.labels.freeze(value.vector, reason)
            elif isinstance(value, Parameter):
                self.labels.pin(value.name, reason)
        return self.results(lambda shape: self.fixed(shape, reason))

    def results(self, make: Any) -> Any:
        """`make(shape)` for each tensor result: one value, or a tuple for operators that return
        several.
        """
        made = tuple(Opaque() if shape is None else make(shape) for shape in self.call.shapes)
        return made[0] if len(made) == 1 and not returns_list(self.call) else made

    def read(self, parameter: Any, dim: int, labels: Vector) -> bool:
        """Let `labels` own the slices of `parameter` along its current `dim`; freeze them where
        that is impossible.
        """
        if not isinstance(parameter, Parameter):
            return True
        axis = parameter.axis(dim)
        if axis is None:
            reason = self.why(f"{parameter.name} mixes dimensions")
            self.labels.freeze(labels, reason)
            self.labels.pin(parameter.name, reason)
            return False
        stored, indices = axis
        self.labels.attach(
            parameter.name, stored, self.stored[parameter.name][stored], indices, labels
        )
        return True

    def rows(self, parameter: Parameter, dim: int) -> Vector:
        """Labels of the output rows of a weight along its current `dim`."""
        axis = parameter.axis(dim)
        assert axis is not None  # callers check `plain`
        stored, indices = axis
        return self.labels.produce(
            parameter.name, stored, self.stored[parameter.name][stored], indices
        )

    def owner(self, parameter: Any, kinds: type | tuple[type, ...]) -> str | None:
        """Path of the module that holds `parameter` (or that makes this call) if it is one of
        `kinds`.
        """
        name = (
            parameter.name.rpartition(".")[0]
            if isinstance(parameter, Parameter)
            else self.call.module
        )
        return name if isinstance(self.modules.get(name), kinds) else None

    def width(self, module: str | None, attribute: str, labels: Vector) -> None:
        """A module attribute counts these channels and must follow a cut."""
        if module is not None:
            self.labels.widths.append((module, attribute, len(labels), labels))

    def unproven(self, labels: Vector) -> None:
        """A size on this line may be hard-coded; `verify` will cut these units and see."""
        self.labels.unproven.setdefault(self.call.line, []).append(labels)

    def count(self, weight: Parameter, type_: str, positions: int, **layout: int) -> None:
        """Add `positions` applications of a weight."""
        if not self.counting:
            return
        module = self.modules.get(weight.name.rpartition(".")[0], self.model)
        kind = type_ if module is self.model else type(module).__name__
        use = self.uses.setdefault(weight.name, Use(kind, weight.name, **layout))
        use.positions += positions

    def count_fixed(self, macs: int) -> None:
        """Multiplications that no cut changes."""
        if not self.counting:
            return
        key = self.call.module or self.call.name
        self.uses.setdefault(f"{key}:", Use(self.call.name, "")).fixed_macs += macs


def label(
    model: nn.Module, captures: Iterable[Capture], choices: Mapping[str, str], open_statistics: bool
) -> Pass:
    """Run the labels through every captured graph of the same model; only the first one's
    operations are counted.
    """
    from stages.trace.rules import rule_for  # rules import Pass

    state = Pass(model, choices, open_statistics)
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


def _bind(call: Call, values: Mapping[int, Any]) -> dict[str, Any]:
    """Arguments by schema name, defaults filled in, references resolved to values."""

    def resolve(argument: Any) -> Any:
        if isinstance(argument, Ref):
            value = values[argument.index]
            return value if argument.item is None else value[argument.item]
        if isinstance(argument, (list, tuple)):
            return [resolve(item) for item in argument]
        return argument

    if not isinstance(call.target, torch._ops.OpOverload):
        return {str(i): resolve(argument) for i, argument in enumerate(call.args)}
    bound: dict[str, Any] = {}
    for position, argument in enumerate(call.target._schema.arguments):
        if position < len(call.args):
            bound[argument.name] = resolve(call.args[position])
        elif argument.name in call.kwargs:
            bound[argument.name] = resolve(call.kwargs[argument.name])
        else:
            bound[argument.name] = argument.default_value
    return bound


def returns_list(call: Call) -> bool:
    """True for operators whose result is read through getitem."""
    if not isinstance(call.target, torch._ops.OpOverload):
        return False
    returned = call.target._schema.returns
    return (
        len(returned) != 1
        or "[]" in str(returned[0].type)
        or str(returned[0].type).startswith("List")
    )

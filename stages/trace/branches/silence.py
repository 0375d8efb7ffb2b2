"""Which parameters make the result of a branch zero, and which of its modules end it.

Walks back from what is added, through operators that make zero of zero, to the last layer:

    + ◀─ dropout ◀─ norm2 ◀─ …          norm2.weight = norm2.bias = 0
    + ◀─ gamma * … ◀─ mlp.2 ◀─ …        mlp.2.weight = mlp.2.bias = 0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stages.trace.branches.flow import Flow
from stages.trace.capture.calls import Call, Ref
from stages.trace.propagate.zeros import BOUNDS, CONVOLUTIONS, NORMS, OF_ONE, holds_zero

_BY_WEIGHT = CONVOLUTIONS | NORMS | {"layer_norm", "rms_norm"}
_EITHER = {"mul", "multiply", "matmul", "bmm", "mm"}
_ALL = {"add", "sub", "cat", "concat", "stack", "maximum", "minimum"}
_FIRST = OF_ONE | {"div", "group_norm", "layer_norm", "rms_norm"}


class Stays(Exception):
    """A branch that must stay; the text says why."""


@dataclass(frozen=True)
class Silence:
    """How to make a value zero: these parameters are, and these modules give zeros.

    Attributes:
        endings: {module: index of the value that it gives}.
    """

    parameters: frozenset[str] = frozenset()
    endings: Mapping[str, int] = field(default_factory=dict)

    def __or__(self, other: Silence) -> Silence:
        return Silence(self.parameters | other.parameters, {**self.endings, **other.endings})


@dataclass(frozen=True)
class Silencing:
    """The walk through one branch: its calls, and the module of the branch that each belongs to."""

    flow: Flow
    calls: frozenset[int]
    module: Mapping[int, str]
    parameters: frozenset[str]

    def of(self, ref: Ref, outside: str = "") -> Silence:
        """How to make `ref` zero, which something in module `outside` reads.

        Raises:
            Stays: no parameters of the branch do.
        """
        position = self.flow.maker.get(ref.index)
        if position is None:
            if not outside:  # nothing could stand in for what forward itself applies
                raise Stays("its last weights are no module's that runs for it alone")
            return Silence(frozenset([self._parameter(ref)]))
        if position not in self.calls:
            raise Stays("what it adds is not made by weights of its own")
        call, inside = self.flow.calls[position], self.module.get(position, "")
        found = self._call(call, position, inside)
        if inside and inside != outside:
            return found | Silence(endings={inside: ref.index})
        return found

    def _parameter(self, ref: Ref) -> str:
        name = self.flow.stored(ref)
        readers = self.flow.readers[ref.index]
        if name not in self.parameters or not readers <= self.calls:
            raise Stays("what it adds is not made by weights of its own")
        return name

    def _call(self, call: Call, position: int, inside: str) -> Silence:
        name, refs = call.name.rstrip("_"), self.flow.reads[position]
        if name in _BY_WEIGHT and isinstance(call.argument("weight"), Ref):
            own = [call.argument("weight"), call.argument("bias")]
            return self._all([ref for ref in own if isinstance(ref, Ref)], inside)
        if name in _FIRST and refs:
            return self.of(refs[0], inside)
        if name in BOUNDS and holds_zero(call, BOUNDS[name]):
            return self.of(refs[0], inside)
        if name in _EITHER:
            return self._either(list(refs), inside)
        if name in _ALL and len(refs) > 1:
            return self._all(list(refs), inside)
        raise Stays(f"{call.where} makes other than zero of zero")

    def _all(self, refs: list[Ref], inside: str) -> Silence:
        found = Silence()
        for ref in refs:
            found = found | self.of(ref, inside)
        return found

    def _either(self, refs: list[Ref], inside: str) -> Silence:
        problem = Stays("what it adds is not made by weights of its own")
        # activations first: a factor such as a layer scale may not be all that a module has
        for ref in sorted(refs, key=lambda ref: ref.index in self.flow.inputs):
            try:
                return self.of(ref, inside)
            except Stays as error:
                problem = error
        raise problem

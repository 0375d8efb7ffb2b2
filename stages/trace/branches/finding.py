"""Operands of additions that could be left out, and what of the network goes with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pipeline.channels.branch import Branch, Ending
from pipeline.channels.graph import ChannelGraph
from stages.trace.branches.flow import Flow, upwards
from stages.trace.branches.silence import Silencing, Stays
from stages.trace.capture.calls import Capture, Ref

_ADDITIONS = ("add", "add_")


@dataclass(frozen=True)
class Candidate:
    """One operand of an addition: the calls that work for it alone.

    Attributes:
        addition: position of the call. operand, trunk: what it adds, and what is left without it.
        modules: outermost modules that run for it alone, and {call: which of them}.
    """

    flow: Flow
    addition: int
    operand: Ref
    trunk: Ref
    calls: frozenset[int]
    parameters: frozenset[str]
    modules: tuple[str, ...]
    module: Mapping[int, str]

    @property
    def identity(self) -> bool:
        """Whether it reads the very activation that it is added to."""
        return self.flow.entering(self.calls) == {self.trunk.index}

    @property
    def name(self) -> str:
        """The module that adds; the last of the branch where the whole network does."""
        return self.flow.calls[self.addition].module or self.modules[-1]

    @cached_property
    def stored(self) -> frozenset[str]:
        """Parameters and buffers that its calls read."""
        return _stored(self.flow, self.calls)


def candidates(capture: Capture, parameters: Iterable[str]) -> list[Candidate]:
    """Of every addition of two results of one shape the operand with more weights, in order."""
    flow, learned = Flow(capture), frozenset(parameters)
    of_module = _calls_by_module(flow)
    found = []
    for position, call in enumerate(flow.calls):
        if call.name not in _ADDITIONS or position in flow.dead:
            continue
        sides = [side for side in _sides(flow, position, learned, of_module) if side.modules]
        if sides:  # of two alike, the one that is added
            found.append(max(sides, key=lambda side: len(side.stored)))
    return found


def _sides(
    flow: Flow, position: int, learned: frozenset[str], of_module: Mapping[str, set[int]]
) -> Iterator[Candidate]:
    refs = flow.reads[position]
    if len(refs) != 2 or refs[0].index == refs[1].index:
        return
    for operand, trunk in (refs[::-1], refs):
        calls = flow.only_for(operand, position)
        module = _outermost(flow, calls, of_module)
        stored = _stored(flow, calls)
        tensors = {name for name in stored if name.rpartition(".")[0]}
        modules = dict.fromkeys(module[p] for p in sorted(module))
        owning = tuple(p for p in modules if any(t.startswith(f"{p}.") for t in tensors))
        yield Candidate(flow, position, operand, trunk, calls, stored & learned, owning, module)


def _calls_by_module(flow: Flow) -> dict[str, set[int]]:
    """{module: positions of all calls that it and the modules in it make}."""
    found: dict[str, set[int]] = {}
    for position, call in enumerate(flow.calls):
        if position not in flow.dead:
            for path in upwards(call.module):
                found.setdefault(path, set()).add(position)
    return found


def _outermost(
    flow: Flow, calls: frozenset[int], of_module: Mapping[str, set[int]]
) -> dict[int, str]:
    """{call: the outermost module around it that makes no other calls}; others make it."""
    running: dict[str, list[int]] = {}
    for position in calls:
        running.setdefault(flow.calls[position].module, []).append(position)
    found: dict[int, str] = {}
    for path, positions in running.items():
        if own := [p for p in upwards(path) if of_module[p] <= calls]:
            found |= dict.fromkeys(positions, own[-1])
    return found


def _stored(flow: Flow, calls: Iterable[int]) -> frozenset[str]:
    return frozenset().union(*(flow.names[position] for position in calls))


@dataclass(frozen=True)
class Found:
    """A candidate, what goes with it, and {module: shape that its zeros must have}."""

    candidate: Candidate
    branch: Branch
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def stays(self, reason: str) -> Found:
        """The same with a reason why it must stay."""
        return replace(self, branch=Branch(self.branch.id, reason=reason))


def found_of(candidate: Candidate, graph: ChannelGraph, name: str) -> Found:
    """What goes with a candidate; with a reason where it must stay. How large its zeros are
    against what they read, `trials` finds out.
    """
    flow, calls = candidate.flow, candidate.calls
    walk = Silencing(flow, calls, candidate.module, candidate.parameters)
    try:
        silence = walk.of(candidate.operand)
        modules = tuple(dict.fromkeys([*candidate.modules, *silence.endings]))
        branch = Branch(
            name,
            modules=modules,
            endings=tuple(Ending(path) for path in silence.endings),
            silent=tuple(sorted(silence.parameters)),
        )
        _check(candidate, branch, graph)
    except Stays as problem:
        return Found(candidate, Branch(name, reason=str(problem)))
    groups = tuple(
        group.id for group in graph.groups if all(branch.holds(m.parameter) for m in group.members)
    )
    shapes = {path: flow.shape(Ref(index)) or () for path, index in silence.endings.items()}
    return Found(candidate, replace(branch, groups=groups), shapes)


def _check(candidate: Candidate, branch: Branch, graph: ChannelGraph) -> None:
    """Raise Stays where something else needs what would go."""
    flow, calls = candidate.flow, candidate.calls
    result = flow.calls[candidate.addition].shapes[0]
    if {flow.shape(candidate.operand), flow.shape(candidate.trunk)} != {result}:
        raise Stays("the two sides of the sum have different shapes")
    if not flow.computed_from(candidate.trunk, flow.entering(calls)):
        raise Stays("it reads what the other side is not computed from")
    if flow.writes_outside(calls):
        raise Stays("it may write into memory that others read")
    for index in sorted({index for path in branch.modules for index in flow.held.get(path, ())}):
        if not flow.readers[index] <= calls:
            raise Stays(f"{flow.inputs[index].name} is read elsewhere as well")
    for alias, name in graph.aliases.items():
        if branch.holds(alias) != branch.holds(name):
            raise Stays(f"{name} is {alias} as well")

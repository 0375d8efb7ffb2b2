"""Who makes, and who reads, each value of one forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from functools import cached_property
from heapq import heappop, heappush

import torch

from stages.trace.capture.calls import Capture, Input, Ref

OUTSIDE = -1
"""Position of whoever reads what the network returns or leaves in a buffer."""

# they give new memory, whatever comes in; of others a result may be a view of what came in
_NEW = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
     "convolution", "linear", "matmul", "bmm", "addmm", "batch_norm", "layer_norm", "group_norm",
     "instance_norm", "relu", "gelu", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "add",
     "sub", "mul", "div", "cat", "max_pool2d", "avg_pool2d"}
)  # fmt: skip


class Flow:
    """The calls of a capture as a graph; a call is known by its position."""

    def __init__(self, capture: Capture) -> None:
        self.calls = capture.calls
        self.maker = {call.index: position for position, call in enumerate(capture.calls)}
        self.inputs: dict[int, Input] = {source.index: source for source in capture.inputs}
        self.dead = capture.dead
        self.reads = [call.refs for call in capture.calls]
        self.names = [tuple(filter(None, map(self.stored, refs))) for refs in self.reads]
        self.readers: dict[int, set[int]] = defaultdict(set)
        for position, refs in enumerate(self.reads):
            for ref in refs if position not in self.dead else ():
                self.readers[ref.index].add(position)
        for ref in (*capture.outputs, *capture.written):
            if ref.index in self.maker:  # buffers that stay as they were are no results
                self.readers[ref.index].add(OUTSIDE)

    @cached_property
    def held(self) -> dict[str, list[int]]:
        """{module: indices of the tensors whose names lie in it}."""
        found: dict[str, list[int]] = {}
        for index, source in self.inputs.items():
            for path in upwards(source.name):
                found.setdefault(path, []).append(index)
        return found

    def shape(self, ref: Ref) -> tuple[int, ...] | None:
        if ref.index in self.inputs:
            return self.inputs[ref.index].shape
        return self.calls[self.maker[ref.index]].shapes[ref.item or 0]

    def stored(self, ref: Ref) -> str:
        """The parameter or buffer that a reference is; "" for anything else."""
        source = self.inputs.get(ref.index)
        return source.name if source is not None and source.kind == "parameter" else ""

    def only_for(self, ref: Ref, reader: int) -> frozenset[int]:
        """The calls whose results reach nothing but `ref`, as the call `reader` reads it."""
        found: set[int] = set()
        waiting = [-self.maker[ref.index]] if ref.index in self.maker else []
        seen = set(waiting)
        # backwards: what reads a result comes after it, so that its readers are settled before it
        while waiting:
            position = -heappop(waiting)
            index = self.calls[position].index
            # the trunk of a sum is read by it as well
            own = {reader} if index == ref.index else set()
            if not self.readers[index] <= found | own:
                continue
            found.add(position)
            for other in self.reads[position]:
                place = -self.maker.get(other.index, 1)
                if other.index in self.maker and place not in seen:
                    seen.add(place)
                    heappush(waiting, place)
        return frozenset(found)

    def computed_from(self, ref: Ref, sources: Set[int]) -> bool:
        """Whether every value of these indices is `ref` or goes into it."""
        first = min((self.maker.get(index, OUTSIDE) for index in sources), default=0)
        found, waiting = {ref.index}, [ref.index]
        while waiting and not sources <= found:
            position = self.maker.get(waiting.pop(), OUTSIDE)
            # nothing before the first of them can come from it
            for other in self.reads[position] if position > first else ():
                if other.index not in found:
                    found.add(other.index)
                    waiting.append(other.index)
        return sources <= found

    def entering(self, calls: Iterable[int]) -> set[int]:
        """Indices of the activations from outside that these calls read."""
        calls = set(calls)
        return {
            ref.index
            for position in calls
            for ref in self.reads[position]
            if self.maker.get(ref.index, OUTSIDE) not in calls
            and self.inputs.get(ref.index, _ACTIVATION).kind == "input"
        }

    def writes_outside(self, calls: frozenset[int]) -> bool:
        """Whether one of these calls may write into memory that others hold."""
        return any(
            self.calls[position].acts and not self._own(position, calls) for position in calls
        )

    def _own(self, position: int, calls: frozenset[int]) -> bool:
        """Whether what a call writes into was made by one of these calls."""
        call = self.calls[position]
        if not isinstance(call.target, torch._ops.OpOverload) or call.target.namespace != "aten":
            return False
        refs = self.reads[position]
        maker = self.maker.get(refs[0].index, OUTSIDE) if refs else OUTSIDE
        if maker not in calls:
            return False
        return self.calls[maker].name in _NEW or self._own(maker, calls)


_ACTIVATION = Input(OUTSIDE, "input", "", None)


def upwards(path: str) -> Iterator[str]:
    """The path of a module, and of every module around it but the network."""
    while path:
        yield path
        path = path.rpartition(".")[0]

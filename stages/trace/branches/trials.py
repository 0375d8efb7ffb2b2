"""Does forward run without its branches? It is run without values, stand-ins in their places.

What else it does must be what it did: the same operators, with results of the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from pipeline.channels.branch import Branch, Ending, Zeros
from pipeline.channels.graph import ChannelGraph
from stages.trace.branches.finding import Found
from stages.trace.branches.flow import Flow, upwards
from stages.trace.branches.silence import Stays
from stages.trace.capture.calls import Call, Capture, Ref
from stages.trace.capture.dispatch_capture import by_dispatch
from stages.trace.capture.model_state import Snapshot
from stages.trace.check.followers import Stopped
from stages.trace.propagate.zeros import CONVOLUTIONS

_POOLS = {"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"}

_STAND_INS = {"new_zeros", "zeros_like"}  # what these call

Shape = tuple[int, ...]


class Problem(NamedTuple):
    """What goes wrong without some branches, and the position of the first call that is missed."""

    text: str
    position: int


class Trial:
    """Runs of one network without some of its branches; `seen` is what their last modules read."""

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        capture: Capture,
        graph: ChannelGraph,
        snapshot: Snapshot,
    ) -> None:
        self.model, self.inputs, self.capture, self.graph = model, inputs, capture, graph
        self.snapshot = snapshot
        self.seen: dict[str, Shape] = {}

    def problem(self, found: Collection[Found]) -> Problem | None:
        """What goes wrong without these."""
        probes = {
            path: _Probe(shape, partial(self.seen.__setitem__, path))
            for one in found
            for path, shape in one.shapes.items()
        }
        others = {path: Zeros() for one in found for path in one.branch.modules}
        watch = _Watch(self.capture, found)
        try:
            # of the user's own network: a copy for each trial would take longer than the run
            by_dispatch(
                self.model,
                self.inputs,
                ground=self.capture.ground,
                watch=watch,
                snapshot=self.snapshot,
                instead={**others, **probes},
            )
            watch.ended()
        except Stopped as stopped:
            return Problem(f"without it, {stopped.deviation}", watch.position)
        except Exception as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Problem(f"forward does not run without it: {text}", watch.position)
        return None

    def settled(self, one: Found) -> Branch:
        """The branch, its zeros as large as they must be."""
        try:
            endings = tuple(self._ending(one, path) for path in one.shapes)
        except Stays as problem:
            return one.stays(str(problem)).branch
        return replace(one.branch, endings=endings)

    def _ending(self, one: Found, path: str) -> Ending:
        wanted, seen = one.shapes[path], self.seen[path]
        if wanted == seen and one.candidate.identity:
            return Ending(path)
        if len(wanted) != len(seen) or len(wanted) < 3:
            raise Stays("its zeros would be of another number of dimensions than its input")
        sizes = list(zip(seen[2:], wanted[2:], strict=True))
        strides = tuple(-(-before // max(after, 1)) for before, after in sizes)
        same = all(-(-b // s) == a for (b, a), s in zip(sizes, strides, strict=True))
        if not same or not _by_stride(one):
            raise Stays("the size of its output is no stride of its input's")
        return Ending(path, strides, self._channels(one, path, wanted[1]))

    def _channels(self, one: Found, path: str, width: int) -> str:
        """A parameter that is as long as the output is wide, and is cut with it."""
        for name in one.branch.silent:
            if name.startswith(f"{path}.") and self.graph.parameters[name][0] == width:
                return name
        raise Stays("no parameter is as long as its output is wide")


class _Probe(nn.Module):
    """Zeros of a given shape; `note` is told the shape of what comes in."""

    def __init__(self, shape: Shape, note: Callable[[Shape], None]) -> None:
        super().__init__()
        # no attribute that forward sets: whatever a run leaves in modules is put back
        self.shape, self.note = shape, note

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self.note(tuple(x.shape))
        return x.new_zeros(self.shape)


class _Watch:
    """Stops a run that does anything else than what is left without some branches."""

    def __init__(self, capture: Capture, found: Collection[Found]) -> None:
        gone = {path for one in found for path in one.branch.modules}
        within = frozenset().union(*(one.candidate.calls for one in found))
        left = [
            # shapes within a branch may be others: what it makes is not looked at
            (position, call, position not in within)
            for position, call in enumerate(capture.calls)
            if not any(path in gone for path in upwards(call.module))
        ]
        self.waiting, self.end = left[::-1], len(capture.calls)

    @property
    def position(self) -> int:
        """Of the call that comes next."""
        return self.waiting[-1][0] if self.waiting else self.end

    def seen(self, call: Call, results: Sequence[Any]) -> None:
        _, expected, compared = self.waiting[-1] if self.waiting else (0, None, False)
        if call.name in _STAND_INS and (expected is None or expected.name != call.name):
            return
        if expected is None:
            raise Stopped("forward goes on where it ended", call)
        if call.target != expected.target:
            raise Stopped(f"forward takes another path, {call.name} for {expected.name}", expected)
        if compared and call.shapes != expected.shapes:
            raise Stopped(f"{call.name} gives {call.shapes[0]}, not {expected.shapes[0]}", expected)
        self.waiting.pop()

    def failed(self, name: str, line: str) -> None:
        """The run ends with the error."""

    def ended(self) -> None:
        """Raises Stopped where something is missing."""
        if self.waiting:
            call = self.waiting[-1][1]
            raise Stopped(f"forward leaves out {call.name}", call)


def _by_stride(one: Found) -> bool:
    """Whether its output is as large as its input divided by strides, rounded up, at any size."""
    flow = one.candidate.flow
    return all(_rounds_up(flow, position) for position in one.candidate.calls)


def _rounds_up(flow: Flow, position: int) -> bool:
    call, refs = flow.calls[position], flow.reads[position]
    if call.name in CONVOLUTIONS - {"linear"} or call.name in _POOLS:
        weight, pads = call.argument("weight"), call.argument("padding")
        kernel = flow.shape(weight) if isinstance(weight, Ref) else call.argument("kernel_size")
        if kernel is None or "transpose" in call.name or call.argument("ceil_mode"):
            return False
        sides = kernel[2:] if isinstance(weight, Ref) else kernel
        apart = call.argument("dilation") or [1]
        if pads == "same":
            return True
        # one number may stand for all dimensions
        pads, apart = ((list(each) * len(sides))[: len(sides)] for each in (pads, apart))
        return all(2 * p == d * (k - 1) for p, d, k in zip(pads, apart, sides, strict=True))
    after = (call.shapes[0] or ())[2:]
    # a gate has one value a channel, whatever the size
    return set(after) <= {1} or any((flow.shape(ref) or ())[2:] == after for ref in refs)

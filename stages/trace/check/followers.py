"""Two runs side by side: the silenced network sets the course, the small one must keep to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stages.trace.capture.calls import Call
from stages.trace.check.call_differences import other_blocks, other_number, other_path
from stages.trace.check.expected import Promises


@dataclass(frozen=True)
class Deviation:
    """How a run leaves its course.

    `line` is of the network's own code; `site` is the call to blame, "" where none is. `by_value`
    marks differences that rounding could explain, `by_number` those that may come from any width,
    such as another branch, `in_copy` those of the silenced network, which no cut explains.
    """

    text: str
    line: str = ""
    site: str = ""
    by_value: bool = False
    by_number: bool = False
    in_copy: bool = False

    def __str__(self) -> str:
        return f"{self.line}: {self.text}" if self.line else self.text


class Stopped(BaseException):
    """Ends a run at a deviation; no `Exception`, which a forward may catch."""

    def __init__(self, text: str, call: Call, **kind: bool) -> None:
        super().__init__(text)
        self.deviation = Deviation(text, call.line, call.site, **kind)


class Course:
    """Watches the silenced network: the path it takes, and what should be left of its results.

    `traced` are the calls it has to repeat; None where nothing was traced. `infinite` is the first
    call that makes a removed unit infinite, and nothing else.
    """

    def __init__(self, traced: Sequence[Call] | None, promises: Promises | None) -> None:
        self.traced, self.promises = traced, promises
        self.calls: list[Call] = []
        self.left: list[list[torch.Tensor | None]] = []
        self.infinite: Deviation | None = None

    def seen(self, call: Call, results: Sequence[Any]) -> None:
        position = len(self.calls)
        if self.traced is not None:
            _same_step(self.traced, position, call, in_copy=True)
        self.calls.append(call)
        left: list[torch.Tensor | None] = []
        # torch.empty holds whatever was in the memory
        if self.promises is not None and not _uninitialised(call):
            for number, result in enumerate(results):
                tensor = isinstance(result, torch.Tensor)
                left.append(self.promises.slices(position, number, result) if tensor else None)
                if self.infinite is None and left[-1] is not None:
                    self.infinite = _infinite(call, result, left[-1])
        self.left.append(left)

    def failed(self, name: str, line: str) -> None:
        """The sample does not suit the network; whoever runs it sees the error."""


class _Following:
    """Watches the small network and stops it where it leaves the recorded path.

    Numbers may differ in the `dead` calls, by position: their results reach no output.
    """

    def __init__(self, calls: Sequence[Call], dead: frozenset[int]) -> None:
        self.calls, self.dead, self.position, self.failed_site = calls, dead, 0, ""

    def seen(self, call: Call, results: Sequence[Any]) -> None:
        # first: numbers are compared argument by argument of one operator
        _same_step(self.calls, self.position, call)
        number = other_number(self.calls[self.position], call)
        if number and self.position not in self.dead:
            raise Stopped(number, call, by_number=True)
        if blocks := other_blocks(self.calls[self.position], call):
            raise Stopped(blocks, call)
        self.compare(call, results)
        self.position += 1

    def compare(self, call: Call, results: Sequence[Any]) -> None:
        """Stop the run if the results of the call at `position` are not what they should be."""
        raise NotImplementedError

    def failed(self, name: str, line: str) -> None:
        self.failed_site = f"{line} {name}"

    def left_out(self) -> Deviation | None:
        """The first call that a finished run did not make."""
        missing = self.calls[self.position :]
        if not missing:
            return None
        return Deviation(f"the cut network leaves out {missing[0].name}", missing[0].line)


class ShapeFollower(_Following):
    """Compares shapes, of a run without values."""

    def __init__(
        self, calls: Sequence[Call], dead: frozenset[int], promises: Promises | None
    ) -> None:
        super().__init__(calls, dead)
        self.promises = promises

    def compare(self, call: Call, results: Sequence[Any]) -> None:
        if self.promises is None:
            return
        for number, shape in enumerate(call.shapes):
            promised = self.promises.shape(self.position, number)
            if promised is not None and shape != promised:
                raise Stopped(f"gives {shape} where {promised} is left", call)


class Follower(_Following):
    """Compares values, of a run on the sample that the silenced network ran on."""

    def __init__(self, course: Course, dead: frozenset[int], tolerance: float) -> None:
        super().__init__(course.calls, dead)
        self.left, self.tolerance = course.left, tolerance

    def compare(self, call: Call, results: Sequence[Any]) -> None:
        # `left` is empty where nothing is promised
        for result, left in zip(results, self.left[self.position], strict=False):
            if left is not None and (wrong := unlike(result, left, self.tolerance)):
                raise Stopped(f"gives {wrong}", call, by_value=result.shape == left.shape)


def other_outputs(
    expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], tolerance: float
) -> Deviation | None:
    """How the outputs of the small network differ from the silenced one's."""
    if len(expected) != len(found):
        return Deviation("the cut network has another number of outputs")
    for one, other in zip(expected, found, strict=True):
        if wrong := unlike(other, one, tolerance):
            text = f"the output of the cut network has {wrong}"
            return Deviation(text, by_value=other.shape == one.shape)
    return None


def _same_step(course: Sequence[Call], position: int, call: Call, *, in_copy: bool = False) -> None:
    who = "a copy of the network" if in_copy else "the cut network"
    if position >= len(course):
        raise Stopped(f"{who} goes on where the network ends", call, in_copy=in_copy)
    if other := other_path(course[position], call):
        elsewhere = course[position].line != call.line  # a branch: any width may have decided it
        raise Stopped(f"{who} {other}", course[position], in_copy=in_copy, by_number=elsewhere)


def unlike(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> str:
    """What a tensor is instead of `expected`, values relative to the largest; "" if it is that."""
    if found.shape != expected.shape:
        return f"{tuple(found.shape)} where {tuple(expected.shape)} is left"
    if not found.numel():
        return ""
    if not (found.is_floating_point() or found.is_complex()):
        return "" if torch.equal(found, expected) else "other values"
    largest = float(expected.abs().max())
    if float((found - expected).abs().max()) <= tolerance * max(largest, 1e-30):
        return ""
    if largest == largest and largest != float("inf"):
        return "other values"
    # NaN and infinity must at least stand at the same places
    close = torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    return "" if close else "other values"


def _infinite(call: Call, whole: torch.Tensor, left: torch.Tensor) -> Deviation | None:
    """Zeros of a silenced unit that are divided by, which no zero weight takes back."""
    if whole.shape == left.shape or bool(whole.isfinite().all()) or not left.isfinite().all():
        return None
    return Deviation("a silenced channel becomes infinite", call.line, call.site)


def _uninitialised(call: Call) -> bool:
    return call.name.removeprefix("new_").startswith("empty")

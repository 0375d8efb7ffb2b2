"""Does forward follow a cut? The network is cut, run, and compared with the silenced one.

Sizes may be hard-coded, numbers computed from a width, a rule of ours may be wrong: no label shows
it. So units are taken out of all groups at once, another share of each, and the small network runs
beside the silenced one, whose removed units have zero weights. Three looks, the quick ones first:

    without values   at the size of the example: the same operators on the same lines, with the
                     same numbers, and shapes that are the whole network's less the removed slices
    outputs          on noise, on small images where the network takes them: equal to the silenced
                     network's
    call by call     only if outputs differ: the first operator whose result is not the silenced
                     one's less the removed slices is the place where an assumption failed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph
from pipeline.errors import OutOfMemory
from stages.trace.capture.calls import Capture, Ground, tensors_of
from stages.trace.capture.dispatch_capture import by_dispatch, record
from stages.trace.capture.inventory import Inventory
from stages.trace.capture.model_state import Snapshot, set_training
from stages.trace.capture.recorder import Watch
from stages.trace.capture.source_lines import line_of_error, short_path
from stages.trace.check.copies import Cuts, Networks, as_dtype, outlines, samples
from stages.trace.check.expected import Promises
from stages.trace.check.followers import (
    Course,
    Deviation,
    Follower,
    ShapeFollower,
    Stopped,
    other_outputs,
)

_ROUGH, _EXACT = 1e-5, 1e-7  # in float32, and in float64 where that is not enough

T = TypeVar("T")


@dataclass
class CutCheck:
    """Compares what cuts leave of one model with the silenced network.

    `samples` are inputs, the cheapest first; those that do not suit the network are dropped.
    `traced` is what a run without values has to repeat; None where nothing was recorded.
    `in_training` is the same in training mode, where auxiliary heads join in.
    """

    model: nn.Module
    inventory: Inventory
    snapshot: Snapshot
    inputs: tuple[Any, ...]
    traced: Capture | None = None
    in_training: Capture | None = None
    samples: list[tuple[Any, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.samples = samples(self.inputs)
        if self.traced is not None and self.traced.ground is Ground.EXPORT:
            self.traced = None  # its calls cannot be listened to again

    def deviation(
        self,
        graph: ChannelGraph,
        cuts: Cuts,
        promises: Promises | None = None,
        *,
        values: bool = True,
    ) -> Deviation | None:
        """How the small network differs from what it should be; None when it does not.

        Without `values` the calls it makes are compared, their numbers and shapes, and no results.
        """
        networks = Networks(self.model, self.inventory, graph, cuts)
        found = self._without_values(networks, self.traced, promises) or self._without_values(
            networks, self.in_training, None
        )
        if found is None and (values or self.traced is None):
            found = self._outputs(networks)
        if found is None or not found.by_value or self.traced is None:
            return found
        closer = None
        # float32 adds up in another order once channels are gone; in float64 only mistakes are left
        for dtype, tolerance in ((None, _ROUGH), (torch.float64, _EXACT)):
            # made anew: `both` has used up the weights of those before
            closer = self._call_by_call(
                Networks(self.model, self.inventory, graph, cuts, dtype), promises, tolerance
            )
            if closer is None or not closer.by_value:
                break
        # the silenced network strays from the trace itself, so that only outputs can be compared
        return found if closer is not None and closer.in_copy else closer

    def _without_values(
        self, networks: Networks, traced: Capture | None, promises: Promises | None
    ) -> Deviation | None:
        if traced is None:
            return None
        follower = ShapeFollower(traced.calls, traced.dead, promises)
        training, inputs = traced is self.in_training, as_dtype(self.inputs)
        # a model that cannot be copied is refused, and no deviation
        network = networks.outline() if traced.ground is Ground.META else networks.small
        try:
            if traced.ground is Ground.META:
                self._run_outline(network, inputs, follower, training=training)
            else:
                by_dispatch(
                    network, inputs, ground=traced.ground, training=training, watch=follower
                )
        except (Exception, Stopped) as error:
            return _of_error(error, follower.failed_site)
        return follower.left_out()

    def _run_outline(
        self, network: nn.Module, inputs: tuple[Any, ...], watch: Watch, *, training: bool
    ) -> None:
        """Run a copy that is thrown away afterwards."""
        set_training(network, training)
        try:
            record(network, outlines(inputs), Ground.META, watch)
        finally:
            self.snapshot.restore()  # classes and files may keep what forward computed

    def _outputs(self, networks: Networks) -> Deviation | None:
        small, silenced = networks.both()
        try:
            # the silenced network chooses the sample: what then fails on it is the cut's fault
            expected = self._on_sample(lambda inputs: _run(silenced, inputs))
            found = _run(small, as_dtype(self.samples[0]))
        except Exception as error:
            return _of_error(error, "")
        return other_outputs(expected, found, _ROUGH)

    def _call_by_call(
        self,
        networks: Networks,
        promises: Promises | None,
        tolerance: float,
    ) -> Deviation | None:
        small, silenced = networks.both()
        failed_site = ""

        def set_course(inputs: tuple[Any, ...]) -> tuple[Course, list[torch.Tensor]]:
            course = Course(self.traced.calls if self.traced is not None else None, promises)
            torch.manual_seed(0)
            return course, record(silenced, inputs, Ground.REAL, course)[1]

        try:
            course, expected = self._on_sample(set_course, networks.dtype)
            if course.infinite is not None:
                return course.infinite
            dead = self.traced.dead if self.traced is not None else frozenset()
            follower = Follower(course, dead, tolerance)
            inputs = as_dtype(self.samples[0], networks.dtype)
            torch.manual_seed(0)
            try:
                found = record(small, inputs, Ground.REAL, follower)[1]
            finally:  # the site is wanted where it raises
                failed_site = follower.failed_site
        except (Exception, Stopped) as error:
            return _of_error(error, failed_site)
        return follower.left_out() or other_outputs(expected, found, tolerance)

    def _on_sample(
        self, attempt: Callable[[tuple[Any, ...]], T], dtype: torch.dtype | None = None
    ) -> T:
        """The attempt on the first sample that suits it; those before it are dropped."""
        while True:
            try:
                return attempt(as_dtype(self.samples[0], dtype))
            except (Exception, Stopped):
                if len(self.samples) == 1:
                    raise
                del self.samples[0]  # for good: it would not suit the next cut either


def _run(network: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)  # noise in forward is drawn alike in both networks
    with torch.no_grad():
        return tensors_of(network(*inputs))


def _of_error(error: BaseException, site: str) -> Deviation:
    if isinstance(error, Stopped):
        return error.deviation
    if OutOfMemory.said_by(error):  # no fault of the cut's
        raise error
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    frame = line_of_error(error)
    line = f"{short_path(frame.filename)}:{frame.lineno}" if frame is not None else ""
    return Deviation(text, line, site)

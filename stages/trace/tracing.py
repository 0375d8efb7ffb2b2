"""`trace`: capture, label, group; then settle the sizes that forward may have hard-coded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph
from pipeline.errors import RlpError
from stages.trace.branches.search import branches
from stages.trace.capture.calls import Capture
from stages.trace.capture.dispatch_capture import by_dispatch
from stages.trace.capture.forward import capture_forward
from stages.trace.capture.inventory import Inventory
from stages.trace.capture.model_state import Snapshot, canonical_names, preserved
from stages.trace.capture.quiet import collector_paused, quiet
from stages.trace.capture.refusals import checked_inputs, unexpected
from stages.trace.check.copies import Cuts
from stages.trace.check.culprits import culprits
from stages.trace.check.followers import Deviation
from stages.trace.cut_check import CutCheck
from stages.trace.grouping import build
from stages.trace.guesses import Guess, guesses, points_read_by_name
from stages.trace.labelled import Labelled
from stages.trace.propagate.labelling import label
from stages.trace.propagate.readings import Reading

_DEPTH = 20  # modules in modules
_NOT_FOLLOWED = "forward does not follow its cut"

Inputs = torch.Tensor | tuple[Any, ...] | list[Any]


def trace(
    model: nn.Module, example_inputs: Inputs, *, open_statistics: bool = False
) -> ChannelGraph:
    """Find every set of channels that lives or dies together.

    The model runs on tensors without values, in training mode too where eval mode leaves parameters
    unused, and cut copies of it run on noise. Weights, buffers, training mode and random state stay
    as they are.

    Args:
        model: any classifier torch.export accepts.
        example_inputs: one input, or a tuple of positional inputs, at the size of use.
        open_statistics: make channels below LayerNorm and GroupNorm(1, …) prunable although the
            statistics of the remaining channels then change; such groups have `exact=False`.

    Raises:
        UsageError: the network does not run on these inputs, or does what cannot be followed; the
            message names the line of its code.
    """
    try:
        inputs = checked_inputs(model, example_inputs)
        with quiet(), collector_paused(), preserved(model) as snapshot:
            return _Tracing(model, inputs, open_statistics, snapshot).graph().bind(model)
    except RlpError as error:
        problem = error
    except (Exception, SystemExit) as error:
        problem = unexpected(model, error)
    raise problem.with_traceback(None) from None  # those frames are no lines of the user's


@dataclass
class _Tracing:
    """The search for readings of ambiguous sizes under which forward follows every cut."""

    model: nn.Module
    inputs: tuple[Any, ...]
    open_statistics: bool
    snapshot: Snapshot
    readings: dict[str, Reading] = field(default_factory=dict)
    follows: dict[str, Guess] = field(default_factory=dict)
    untried: dict[tuple[str, Reading], list[Guess]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    frozen: dict[str, str] = field(default_factory=dict)
    draw: int = 0  # of the cuts, the one that showed the latest deviation

    def __post_init__(self) -> None:
        self.inventory = Inventory(self.model)
        self.captured: Capture = capture_forward(self.model, self.inputs, self.snapshot)
        self.captures = [self.captured, *self._in_training()]
        self.names = canonical_names(self.model)
        first = self.inputs[0]
        self.batch = (
            max(first.shape[0], 1) if isinstance(first, torch.Tensor) and first.dim() else 1
        )
        self.check = CutCheck(
            self.model, self.inventory, self.snapshot, self.inputs, *self.captures
        )

    def graph(self) -> ChannelGraph:
        """Settle how every ambiguous size is read, then freeze what still does not survive a cut.

        Each round labels the network under the current readings, cuts all prunable groups, another
        share of each, and runs the result. Take 4 channels that pass line 7,
        `y.view(b, 2, 2, h, w)`, where nothing tells which 2 belongs to the channels, or whether any
        does:

            round   line 7 view   units            the cut network
            1       INNER         {0, 2} {1, 3}    2 channels left: view raises, so it is read OUTER
            2       OUTER         {0, 1} {2, 3}    view raises again
            3       FIXED         none             runs; the channels stay, view is the reason

        With `y.view(b, 2, c // 2, h, w)` round 1 holds, and `_read_otherwise` asks whether OUTER
        would open more. Where no site is to blame, such as for a width that is read as a number
        elsewhere, the groups concerned are found by halving (`_freeze_culprits`).

        With `y.view(b, 2, self.half, h, w)` rounds 1 to 3 are the same until `half` is guessed to
        count channels; every reading of a site is tried with such guesses before the next one.
        """
        labelled = self._label()
        if self._guess_points(labelled):
            labelled = self._label()
        labelled = self._settled(labelled)
        for site in labelled.collapsed_sites():
            labelled = self._by_whole_groups(labelled, site)
        graph = labelled.graph
        found = branches(self.model, self.inputs, self.captures, graph, self.snapshot)
        return replace(graph, branches=found)

    def _settled(self, labelled: Labelled) -> Labelled:
        """The network under readings and guesses that hold."""
        while True:
            before, draws = dict(self.readings), self._draws(labelled)
            deviation = self._deviation_by(draws[:1], labelled)
            if deviation is None:
                more = self._opened(labelled)  # by all draws: the others of this one can wait
                deviation = self._deviation_by(draws[1:], labelled) if more is labelled else None
                if deviation is None:
                    return more
                self.readings = before
            draw = self.draw
            if not self._settle(labelled, deviation) and not self._drop_guess(labelled, deviation):
                # `_settle` and `_drop_guess` have drawn others meanwhile
                self.draw = draw
                self._freeze_culprits(labelled, deviation)
            labelled = self._label()

    def _by_whole_groups(self, labelled: Labelled, site: str) -> Labelled:
        """Let a convolution lose whole groups if more of the parameters can go then."""
        before = [dict(held) for held in (self.readings, self.follows, self.problems, self.frozen)]
        self.readings[site] = Reading.OUTER
        other = self._settled(self._label())
        if other.slices() > labelled.slices():  # their units differ in size
            return other
        self.readings, self.follows, self.problems, self.frozen = before  # type: ignore[assignment]
        return labelled

    def _in_training(self) -> list[Capture]:
        """A second capture where eval mode leaves parameters unused: auxiliary heads must
        follow a cut as well.
        """
        used = {source.name for source in self.captured.inputs}
        if all(name in used for name in self.inventory.parameters):
            return []
        with contextlib.suppress(Exception):  # batch norm may refuse to train on one sample
            return [by_dispatch(self.model, self.inputs, training=True, snapshot=self.snapshot)]
        return []

    def _label(
        self,
        *sites: str,
        reading: Reading = Reading.FIXED,
        guess: Guess = (),
        frozen: Mapping[str, str] | None = None,
    ) -> Labelled:
        """The network as it is now, but for sites that are read otherwise, the first by a guess."""
        frozen = self.frozen if frozen is None else frozen
        readings = {**self.readings, **dict.fromkeys(sites, reading)}
        # a guess is made under one reading
        follows = {**self.follows, **dict.fromkeys(sites, ()), **dict.fromkeys(sites[:1], guess)}
        state = label(
            self.inventory, self.captures, readings, self.problems, self.open_statistics, follows
        )
        graph, settled = build(state, self.captured.inputs, self.names, self.batch)
        return Labelled(state, graph.with_frozen(frozen), settled)

    def _draws(self, labelled: Labelled) -> list[int]:
        """Cuts to try, more of them where sizes were guessed, and others where forward may take
        another way at other widths.
        """
        guessed = bool(labelled.state.followed or labelled.state.labels.pieces)
        return [0] + [1, 2] * guessed + [3, 4] * self.captured.branches

    def _deviation_of_all(self, labelled: Labelled) -> Deviation | None:
        return self._deviation_by(self._draws(labelled), labelled)

    def _deviation_by(self, draws: Sequence[int], labelled: Labelled) -> Deviation | None:
        """What goes wrong when all groups are cut by these draws."""
        ids = [group.id for group in labelled.graph.prunable]
        for self.draw in draws:
            if found := self._deviation(labelled, ids):
                return found
        self.draw = 0
        return None

    def _deviation(
        self, labelled: Labelled, ids: Iterable[str], *, values: bool = True
    ) -> Deviation | None:
        """What goes wrong when these groups are cut.

        Groups that are open although a cut changes statistics are no equal of the silenced network,
        by request.
        """
        exact = [group_id for group_id in ids if labelled.graph[group_id].exact]
        if not exact:
            return None
        cuts = Cuts.draw(labelled.graph, exact, self.inventory, self.draw)
        # the first draws show what a rule got wrong, further ones what else forward does then
        values = values and self.draw < 2
        return self.check.deviation(labelled.graph, cuts, labelled.promises(cuts), values=values)

    def _settle(self, labelled: Labelled, deviation: Deviation) -> bool:
        """Guess what counts channels at the site of a deviation, or read it in a weaker way; False
        where that is no remedy.
        """
        site = deviation.site
        before = self.readings.get(site, labelled.first_reading(site))
        passing = labelled.groups_at(site)
        if before is Reading.FIXED or not passing:
            return False
        if deviation.by_number:  # of the channels that arrive, or of others the line knows of?
            arriving = labelled.groups_at(site, arriving=True)
            alone = self._deviation(labelled, arriving)
            if alone is None or alone.site != site:
                return False
            if self._drop_guess(labelled, deviation):
                return True
            self.frozen.update(dict.fromkeys(arriving, f"{_NOT_FOLLOWED}: {alone}"))
            return True
        reading, guess = self._weaker(labelled, site)
        if reading is Reading.FIXED and self._guessed_at(labelled, site):
            units = self._label(site).units()  # fixing this site would leave these
            if self._drop_guess(labelled, deviation, at_least=units):
                return True
        self.readings[site], self.follows[site] = reading, guess
        self.problems[site] = deviation.text
        return True

    def _weaker(self, labelled: Labelled, site: str) -> tuple[Reading, Guess]:
        """The next guess at a site, or without any left the next reading."""
        reading = self.readings.get(site, labelled.first_reading(site))
        guess = self.follows.get(site, ())
        if (site, reading) not in self.untried:
            # where a guess was taken from the start, going without one is worth a trial
            left = [(), *guesses(labelled.state, site)] if guess else guesses(labelled.state, site)
            self.untried[site, reading] = [other for other in left if other != guess]
        if self.untried[site, reading]:
            return reading, self.untried[site, reading].pop(0)
        if reading is Reading.PIECES:
            return Reading.INNER, ()
        outer = site in labelled.state.labels.split_sites and reading is Reading.INNER
        return (Reading.OUTER if outer else Reading.FIXED), ()

    def _guessed_at(self, labelled: Labelled, site: str) -> bool:
        """Whether a module that runs at a site has an attribute that is guessed at another one."""
        here = labelled.modules_at(site, range(_DEPTH))
        return any(
            # None: above the network, for every site alike
            here & labelled.modules_at(other, {follow.depth for follow in guess}) - {None}
            for other, guess in self.follows.items()
            if other != site
        )

    def _guess_points(self, labelled: Labelled) -> bool:
        """Take attributes that a forward names for the points at which it cuts activations."""
        for site in labelled.state.labels.point_sites:
            if guess := points_read_by_name(labelled.state, site):
                self.follows[site] = guess
        return bool(self.follows)

    def _drop_guess(self, labelled: Labelled, deviation: Deviation, at_least: int = 0) -> bool:
        """Give up a guess without which forward does not leave its course there, if that many
        units are left to cut.
        """
        for site in list(self.follows):
            if site == deviation.site or not self.follows[site]:
                continue
            other = self._label(site)
            if other.units() < at_least:
                continue
            again = self._deviation_of_all(other)
            if again is None or (again.site, again.text) != (deviation.site, deviation.text):
                self.readings[site], self.follows[site] = self._weaker(labelled, site)
                self.problems[site] = str(deviation)
                self.frozen.clear()  # groups may be other ones from now on
                return True
        return False

    def _opened(self, labelled: Labelled) -> Labelled:
        """The network with the other reading of sites that split channels where that opens more
        and holds.
        """
        while more := self._read_otherwise(labelled):
            labelled = more
        return labelled

    def _read_otherwise(self, labelled: Labelled) -> Labelled | None:
        """The first site of which that is so, be it once an attribute counts what it splits off."""
        for site in labelled.state.labels.split_sites:
            if site in self.readings:
                continue
            self.readings[site] = Reading.INNER  # named now, and so asked only once
            for sites, guess, other in self._read_outer(site, labelled):
                if not self._deviation_of_all(other):
                    self.readings |= dict.fromkeys(sites, Reading.OUTER)
                    self.follows[site] = guess
                    thawed = [group.id for group in other.graph.prunable]
                    self.frozen = {k: v for k, v in self.frozen.items() if k not in thawed}
                    return other
        return None

    def _read_outer(
        self, site: str, labelled: Labelled
    ) -> Iterator[tuple[list[str], Guess, Labelled]]:
        """What is read as OUTER, with which guess, and the network then; what opens more."""
        sites = [site]
        first = self._label(site, reading=Reading.OUTER)
        if whole := first.collapsed_sites():  # convolutions by the same groups lose whole ones too
            sites += whole
            first = self._label(*sites, reading=Reading.OUTER)
        if not first.opens_more_than(labelled):
            return
        yield sites, (), first
        for guess in guesses(first.state, site):
            # what is frozen may be so for want of this guess
            for frozen in ({}, self.frozen) if self.frozen else ({},):
                other = self._label(*sites, reading=Reading.OUTER, guess=guess, frozen=frozen)
                if other.opens_more_than(labelled):
                    yield sites, guess, other

    def _freeze_culprits(self, labelled: Labelled, deviation: Deviation) -> None:
        """Groups that forward does not follow for a reason no site shows, such as a size read
        from another tensor.
        """
        ids = [group.id for group in labelled.graph.prunable]
        quick = self._deviation(labelled, ids, values=False)
        check = partial(self._deviation, labelled, values=quick is None)  # quick: shapes differ
        for group_id, problem in culprits(ids, quick or deviation, check).items():
            self.frozen[group_id] = f"{_NOT_FOLLOWED}: {problem}"

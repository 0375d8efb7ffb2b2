"""The network under one set of readings, and what is asked about it when a cut of it fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.group import ChannelGroup
from stages.trace.check.copies import Cuts
from stages.trace.check.expected import Promises
from stages.trace.grouping import TIES
from stages.trace.propagate.attributes import holder
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.labelling import unit_labels
from stages.trace.propagate.labels import Settled
from stages.trace.propagate.readings import Reading


@dataclass
class Labelled:
    """The network under one set of readings."""

    state: Pass
    graph: ChannelGraph
    settled: Settled

    def promises(self, cuts: Cuts) -> Promises:
        """What the labels say is left of every activation."""
        return Promises(self.state, self.settled, self.graph, cuts.large, cuts.small)

    def groups_at(self, site: str, *, arriving: bool = False) -> list[str]:
        """Prunable groups whose units pass a site, or only those that arrive there."""
        return self._passing(site, self.graph.prunable, arriving=arriving)

    def collapsed_sites(self) -> list[str]:
        """Sites of grouped convolutions at which ties leave a single unit of many channels."""
        single = [g for g in self.graph.groups if g.size == 1 and g.reason.startswith(TIES)]
        return [site for site in self.state.labels.group_sites if self._passing(site, single)]

    def _passing(
        self, site: str, groups: Sequence[ChannelGroup], *, arriving: bool = False
    ) -> list[str]:
        owner = np.full(len(self.settled.roots), -1, dtype=np.int64)
        for number, group in enumerate(groups):
            for table in self.graph.slices[group.id]:
                slot = self.state.labels.slots[table.parameter, table.dim]
                labels = slot[table.indices.reshape(-1)]
                owner[self.settled.roots[labels[labels > 0]]] = number
        passing = self.state.passing.get(site, [])
        labels = unit_labels([bound for _, bound, _ in passing] if arriving else passing)
        numbers = np.unique(owner[self.settled.roots[labels]])
        return [groups[number].id for number in numbers.tolist() if number >= 0]

    def units(self) -> int:
        """How many units a plan may cut."""
        return sum(group.size for group in self.graph.prunable)

    def opens_more_than(self, other: Labelled) -> bool:
        """More units may go, or units of more slices, and not fewer of the one for the other."""
        ours, theirs = (self.units(), self.slices()), (other.units(), other.slices())
        return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]

    def slices(self) -> int:
        """How many slices of parameters these units own."""
        return sum(len(m.indices) for group in self.graph.prunable for m in group.members)

    def first_reading(self, site: str) -> Reading:
        """How a site is read that nothing is known about."""
        return Reading.PIECES if site in self.state.labels.point_sites else Reading.INNER

    def modules_at(self, site: str, depths: Iterable[int]) -> set[str | None]:
        """Paths of the modules so many levels above those that run at a site."""
        paths = {call.module for call, _, _ in self.state.passing.get(site, ())}
        return {holder(path, depth) for path in paths for depth in depths}

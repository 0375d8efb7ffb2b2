"""From settled labels to channel groups: units that own slices of the same set of (parameter,
dimension).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.channels.graph import ChannelGraph, Width
from pipeline.channels.group import ChannelGroup, Member
from pipeline.system import GOLDEN_GAMMA, splitmix64
from stages.trace.capture.calls import Input
from stages.trace.layer_costs import layer_costs
from stages.trace.propagate.label_pass import Pass
from stages.trace.propagate.label_values import Vector
from stages.trace.propagate.labels import Settled

# also what weight norm, spectral norm and other parametrisations compute a weight from
_STORED_WEIGHT = re.compile(r"\.(weight(_v|_g|_orig)?|parametrizations\.weight\.original\d?)$")
TIES = "ties make"


@dataclass(frozen=True)
class Grouping:
    """`group[unit]` and `rank[unit]` (position within the group), -1 for units of no group."""

    group: Vector
    rank: Vector
    sizes: Vector


def build(
    state: Pass, inputs: Sequence[Input], names: Mapping[str, str], batch: int
) -> tuple[ChannelGraph, Settled]:
    """The channel graph of a labelling pass, and the units behind it."""
    settled = state.labels.settle()
    # of the model, not of forward: graph.json is the same bytes every time
    order = {name: position for position, name in enumerate(state.stored)}
    slots = sorted(state.labels.slots.items(), key=lambda item: (order[item[0][0]], item[0][1]))
    widths = list(  # a module that runs twice declares its widths twice
        {
            (module, name): (module, name, size, v) for module, name, size, v in state.labels.widths
        }.values()
    )
    extents = [vector for use in state.uses.values() for _, vs in use.products for vector in vs]
    # units that a width counts must be no group with units that it does not count
    counted = [*(vector for *_, vector in widths), *extents, *state.labels.pieces]
    grouping = _group(state, settled, [slot for _, slot in slots], counted)
    groups = _groups(state, settled, slots, grouping)
    follow = partial(_follow, settled, grouping, groups)
    graph = ChannelGraph(
        groups=tuple(groups),
        parameters=dict(state.stored),
        widths=tuple(
            Width(module, attribute, value, follow(labels))
            for module, attribute, value, labels in sorted(widths, key=lambda width: width[:2])
        ),
        layers=tuple(layer_costs(state, follow, batch)),
        aliases={name: first for name, first in names.items() if name != first},
        inputs=tuple(
            source.shape for source in inputs if source.kind == "input" and source.shape is not None
        ),
        unused=tuple(name for name in state.stored if name not in state.touched),
        divisors=tuple(sorted(state.labels.divisors)),
    )
    return graph, settled


def _group(state: Pass, settled: Settled, slots: list[Vector], widths: list[Vector]) -> Grouping:
    """Units with the same owners and the same fate are one group, numbered as they appear.

    In `y = a(x) + b(x); z = c(y)` with 4 channels, of which an output reads the last one alone:

        slot             labels        unit   owners        fate       group   rank
        a.weight dim 0   1 2 3 4       1      a.0 b.0 c.1   prunable   0       0
        b.weight dim 0   5 6 7 8       2      a.0 b.0 c.1   prunable   0       1
        c.weight dim 1   1 2 3 4       3      a.0 b.0 c.1   prunable   0       2
        c.weight dim 0   9 10          4      a.0 b.0 c.1   output     1       0
                                       9      c.0           prunable   2       0
                                       10     c.0           prunable   2       1

    The sum ties label 5 to 1, 6 to 2 and so on, so that `settled.roots` maps both to one unit. The
    set of owners is compared as a sum of 64-bit hashes, one for each slot and label: a unit that
    owns two columns of c for each row of a differs from one that owns a single column.
    """
    count = len(settled.roots)
    key = settled.frozen.astype(np.uint64) * np.uint64(GOLDEN_GAMMA) + settled.inexact.astype(
        np.uint64
    )
    hashes: dict[bytes, tuple[Vector, int]] = {}  # a batch norm's slots all have the same labels
    for position, labels in enumerate([*slots, *widths]):
        _, before = hashes.get(alike := labels.tobytes(), (labels, 0))
        hashes[alike] = labels, before + splitmix64(position * GOLDEN_GAMMA)
    for labels, total in hashes.values():
        # .at, since a unit may own several slices; the sums wrap at 2**64, as those of hashes may
        np.add.at(key, settled.roots[labels[labels > 0]], np.uint64(total % 2**64))
    first = np.full(count, np.iinfo(np.int64).max)
    for position, producer in enumerate(state.labels.producers):
        labels = state.labels.slots[producer]
        where = np.flatnonzero(labels > 0)
        # in order of producers, and of rows within each
        np.minimum.at(first, settled.roots[labels[where]], position * 2**32 + where)
    units = np.flatnonzero(first < np.iinfo(np.int64).max)
    units = units[np.argsort(first[units], kind="stable")]
    _, seen, inverse = np.unique(key[units], return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(seen))[inverse]  # np.unique sorts by key
    group, rank = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    group[units] = number
    sizes = np.bincount(number, minlength=len(seen)) if len(units) else np.zeros(0, dtype=np.int64)
    by_group = np.argsort(number, kind="stable")
    starts = (np.cumsum(sizes) - sizes).astype(np.int64)
    rank[units[by_group]] = np.arange(len(units)) - np.repeat(starts, sizes)
    return Grouping(group, rank, sizes)


def _groups(
    state: Pass, settled: Settled, slots: list[tuple[tuple[str, int], Vector]], grouping: Grouping
) -> list[ChannelGroup]:
    members: list[list[Member]] = [[] for _ in grouping.sizes]
    known: dict[bytes, list[tuple[int, tuple[int, ...]]]] = {}
    for (name, dim), labels in slots:
        alike = labels.tobytes()  # a batch norm's slots all have the same labels
        if alike not in known:
            known[alike] = list(_owned(settled, labels, grouping))
        for group, indices in known[alike]:
            members[group].append(Member(name, dim, indices))
    representative = np.full(len(grouping.sizes), 0)
    # backwards, so that the first of a group is written last
    units = np.flatnonzero(grouping.group >= 0)[::-1]
    representative[grouping.group[units]] = units
    producers = {producer: position for position, producer in enumerate(state.labels.producers)}
    taken: dict[str, int] = {}
    groups = []
    for number, size in enumerate(grouping.sizes.tolist()):
        owned = members[number]
        first = min(
            (producers[m.parameter, m.dim], m) for m in owned if (m.parameter, m.dim) in producers
        )[1]
        name = _STORED_WEIGHT.sub("", first.parameter)
        taken[name] = taken.get(name, 0) + 1
        reason = state.labels.reasons[-settled.frozen[representative[number]]]
        if not reason and size == 1:
            channels = len(first.indices)
            reason = (
                "one channel" if channels == 1 else f"{TIES} all {channels} channels a single unit"
            )
        groups.append(
            ChannelGroup(
                id=name if taken[name] == 1 else f"{name}#{taken[name]}",
                size=size,
                members=tuple(owned),
                prunable=not reason,
                reason=reason,
                exact=not bool(settled.inexact[representative[number]]),
                channels_per_unit=len(first.indices) // size,
            )
        )
    return groups


def _owned(
    settled: Settled, labels: Vector, grouping: Grouping
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Groups that own some of these slices, and which, unit by unit."""
    where = np.flatnonzero(labels > 0)
    units = settled.roots[labels[where]]
    key = grouping.group[units] * 2**32 + grouping.rank[units]
    # units of no group come first
    order = np.argsort(key, kind="stable")[np.count_nonzero(key < 0) :]
    owner, indices = key[order] >> 32, where[order].tolist()
    ends = np.append(np.flatnonzero(owner[1:] != owner[:-1]) + 1, len(owner))
    start = 0
    for stop in ends.tolist() if len(owner) else ():
        yield int(owner[start]), tuple(indices[start:stop])
        start = stop


def _follow(
    settled: Settled, grouping: Grouping, groups: Sequence[ChannelGroup], labels: Vector
) -> tuple[tuple[str, int], ...]:
    """Which groups these labels belong to, and how many of them one unit of each holds."""
    owners = grouping.group[settled.roots[labels[labels > 0]]]
    counts = np.bincount(owners[owners >= 0], minlength=len(groups))
    return tuple(
        (groups[number].id, int(counts[number]) // groups[number].size)
        for number in np.flatnonzero(counts).tolist()
    )

"""The bookkeeping of units: which labels are equal, which must stay and why, which parameter slices
they own.

Ties are only collected while tracing; the connected components are computed once, vectorised, at
the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stages.trace.propagate.label_values import Vector


@dataclass
class Labels:
    """Mutable state of one labelling pass.

    While it is `muted` nothing is frozen: what runs then reaches no output.
    """

    count: int = 0
    muted: bool = False
    reasons: list[str] = field(default_factory=lambda: [""])  # 0: none
    slots: dict[tuple[str, int], Vector] = field(default_factory=dict)
    producers: list[tuple[str, int]] = field(default_factory=list)
    pinned: dict[tuple[str, int | None], int] = field(default_factory=dict)
    divisors: set[tuple[str, int]] = field(default_factory=set)
    widths: list[tuple[str, str, int, Vector]] = field(default_factory=list)
    split_sites: dict[str, None] = field(default_factory=dict)
    point_sites: dict[str, None] = field(default_factory=dict)
    group_sites: dict[str, None] = field(default_factory=dict)
    pieces: list[Vector] = field(default_factory=list)
    _ties: list[tuple[Vector, Vector]] = field(default_factory=list)
    _frozen: list[tuple[Vector, Vector]] = field(default_factory=list)
    _inexact: list[Vector] = field(default_factory=list)
    _reason_of: dict[str, int] = field(default_factory=dict)

    def fresh(self, size: int) -> Vector:
        """`size` new units."""
        first = self.count + 1
        self.count += size
        return np.arange(first, first + size, dtype=np.int64)

    def fixed(self, reason: str) -> int:
        """The label < 0 of channels that stay because of `reason`."""
        if reason not in self._reason_of:
            self._reason_of[reason] = -len(self.reasons)
            self.reasons.append(reason)
        return self._reason_of[reason]

    def tie(self, one: Vector, other: Vector) -> None:
        """Declare labels equal, element by element; a unit that meets a fixed channel is frozen."""
        if one is other:
            return
        if one.shape != other.shape:
            one, other = np.broadcast_arrays(one, other)
        differ = one != other
        differ &= one != 0  # nothing owns that slice yet
        differ &= other != 0
        if not differ.any():
            return
        one, other = one[differ], other[differ]
        both = (one > 0) & (other > 0)
        if both.any():
            self._ties.append((one[both], other[both]))
        # ties are kept: what reaches no output still has to run after a cut
        if self.muted:
            return
        for unit, fixed in ((one, other), (other, one)):
            meets = (unit > 0) & (fixed < 0)
            if meets.any():
                self._frozen.append((unit[meets], fixed[meets]))

    def freeze(self, labels: Vector, reason: str) -> int:
        """Keep all units among `labels` for ever; returns the fixed label of the reason."""
        fixed = self.fixed(reason)
        units = labels[labels > 0]
        if units.size and not self.muted:
            self._frozen.append((units, np.full(units.shape, fixed, dtype=np.int64)))
        return fixed

    def open_inexact(self, labels: Vector) -> None:
        """Mark units whose removal changes statistics of the channels that remain."""
        if not self.muted:
            self._inexact.append(labels[labels > 0])

    def slot(self, parameter: str, dim: int, size: int) -> Vector:
        """Labels of a stored parameter's dimension, 0 where nothing has met it yet."""
        return self.slots.setdefault((parameter, dim), np.zeros(size, dtype=np.int64))

    def attach(
        self, parameter: str, dim: int, size: int, indices: Vector | None, labels: Vector
    ) -> None:
        """Let `labels` own the slices `indices` of a parameter, or all; owned ones are tied."""
        if indices is None and (parameter, dim) not in self.slots and labels.shape == (size,):
            self.slots[parameter, dim] = labels.copy()
            return
        slot = self.slot(parameter, dim, size)
        if indices is None:
            self.tie(slot, labels)
            np.copyto(slot, labels, where=slot == 0)
            return
        order = np.argsort(indices, kind="stable")
        indices, labels = indices[order], labels[order]
        # an expanded parameter: one slice, many readers
        if len(indices) > 1 and (indices[1:] == indices[:-1]).any():
            first = np.searchsorted(indices, indices)  # of each, the first reader of the same slice
            self.tie(labels, labels[first])
        self.tie(slot[indices], labels)
        free = slot[indices] == 0
        slot[indices[free]] = labels[free]  # of several readers the last: they are tied

    def produce(self, parameter: str, dim: int, size: int, indices: Vector | None) -> Vector:
        """Labels of the output rows of a weight, new ones where the rows have none."""
        if (parameter, dim) not in self.producers:
            self.producers.append((parameter, dim))
        return self.owned(parameter, dim, size, indices)

    def owned(self, parameter: str, dim: int, size: int, indices: Vector | None) -> Vector:
        """Labels of slices of a parameter, new ones where they have none."""
        slot = self.slot(parameter, dim, size)
        known = np.arange(size) if indices is None else np.unique(indices)
        missing = known[slot[known] == 0]
        if missing.size:
            slot[missing] = self.fresh(missing.size)
        return slot.copy() if indices is None else slot[indices]

    def pin(self, parameter: str, reason: str, dim: int | None = None) -> None:
        """Whatever owns slices of this parameter, or of one dimension of it, must stay."""
        if not self.muted:
            self.pinned.setdefault((parameter, dim), self.fixed(reason))

    def settle(self) -> Settled:
        """Connected components, with the first reason that freezes each."""
        for (parameter, dim), slot in self.slots.items():
            for place in ((parameter, None), (parameter, dim)):
                if place in self.pinned:
                    self.freeze(slot, self.reasons[-self.pinned[place]])
        roots = _components(self.count + 1, self._ties)  # label 0 is none
        frozen = np.zeros(self.count + 1, dtype=np.int64)
        for units, fixed in reversed(self._frozen):  # the reason met first wins
            frozen[roots[units]] = fixed
        inexact = np.zeros(self.count + 1, dtype=bool)
        for units in self._inexact:
            inexact[roots[units]] = True
        return Settled(roots, frozen, inexact)


@dataclass(frozen=True)
class Settled:
    """Labels resolved: `roots[label]` is the unit; `frozen` and `inexact` are indexed by unit."""

    roots: Vector
    frozen: Vector
    inexact: np.ndarray

    def units(self, labels: Vector) -> Vector:
        """Units of unit labels; fixed labels pass through."""
        return np.where(labels > 0, self.roots[np.maximum(labels, 0)], labels)


def _components(count: int, ties: list[tuple[Vector, Vector]]) -> Vector:
    """Smallest label of every connected component: hook to the smaller root, jump pointers,
    repeat.
    """
    roots = np.arange(count, dtype=np.int64)
    if not ties:
        return roots
    one = np.concatenate([a for a, _ in ties])
    other = np.concatenate([b for _, b in ties])
    left, right = one, other  # its own root is every label yet
    while True:
        # .at, since indexing would keep only one of several hooks of the same root
        np.minimum.at(roots, np.maximum(left, right), np.minimum(left, right))
        while True:
            jumped = roots[roots]
            if (jumped == roots).all():
                break
            roots = jumped
        left, right = roots[one], roots[other]
        open_ = left != right
        if not open_.any():
            return roots
        one, other, left, right = one[open_], other[open_], left[open_], right[open_]

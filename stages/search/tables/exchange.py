"""Wider here for narrower there: the last of what a plan can gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Array, Counts
from stages.search.space.projection import Projector
from stages.search.space.space import Space
from stages.search.tables.loss_table import LossTable

CHECKED = 128  # promising exchanges whose true cost is asked for at once
SURPLUS = 1.01  # costs of a pair do not add up: it may cost less than its parts
LEAST = 1e-12  # gain that is no round-off, in the unit of the losses


@dataclass(frozen=True)
class Moves:
    """Single changes of one group each: which, to what width, and what that does (n,)."""

    group: NDArray[np.int64]
    width: NDArray[np.int64]
    cost: Array
    loss: Array

    def only(self, chosen: NDArray[np.bool_]) -> Moves:
        """Those chosen (n,)."""
        return Moves(*(values[chosen] for values in vars(self).values()))


def exchange(table: LossTable, projector: Projector, counts: Counts) -> Counts:
    """Make the best exchange again and again, until none gains anything; counts (G,)."""
    while (found := _best(table, projector, counts)) is not None:
        counts = found
    return counts


def _best(table: LossTable, projector: Projector, counts: Counts) -> Counts | None:
    """Counts after the exchange that gains most; None: none gains."""
    moves, limit = single_moves(table, projector, counts), projector.limit
    nothing = np.zeros(1)
    up, down = moves.only(moves.loss < -LEAST), moves.only(moves.cost < 0)
    # the first narrower move is none, for where there is room
    saved, lost = np.append(nothing, down.cost), np.append(nothing, down.loss)
    gain = -up.loss[:, None] - lost
    cost = projector.cost.of(counts) + up.cost[:, None] + saved
    together = projector.space.mates | np.eye(len(counts), dtype=bool)
    apart = ~together[up.group[:, None], np.append(0, down.group)]
    apart[:, 0] = True
    ups, downs = np.nonzero((gain > LEAST) & (cost <= limit * SURPLUS) & apart)
    order = np.argsort(-gain[ups, downs], kind="stable")
    for start in range(0, len(order), CHECKED):
        some = order[start : start + CHECKED]
        pairs = zip(ups[some], downs[some] - 1, strict=True)
        rows = np.array([_exchanged(projector.space, counts, up, u, down, d) for u, d in pairs])
        fits = projector.cost.each(rows) <= limit * (1 + projector.slack)
        if fits.any():
            return rows[int(fits.argmax())]
    return None


def _exchanged(space: Space, counts: Counts, up: Moves, u: int, down: Moves, d: int) -> Counts:
    """Counts (G,) after move u of `up`, and d of `down` unless that is -1."""
    if d >= 0:
        counts = space.moved(counts, down.group[d], down.width[d])
    return space.moved(counts, up.group[u], up.width[u])


def single_moves(table: LossTable, projector: Projector, counts: Counts) -> Moves:
    """Every group 1, 2, 4, 8, … widths wider and narrower, and as wide and narrow as may be."""
    place = np.array(
        [own.searchsorted(kept) for own, kept in zip(table.widths, counts, strict=True)]
    )
    last = np.array([len(own) - 1 for own in table.widths])
    parts = []
    offsets = 2 ** np.arange(int(last.max()).bit_length() + 1)
    for offset in (*-offsets, *offsets):
        to = np.clip(place + offset, 0, last)
        widths, losses = (
            np.array([row[at] for row, at in zip(rows, to, strict=True)])
            for rows in (table.widths, table.losses)
        )
        now = np.array([row[at] for row, at in zip(table.losses, place, strict=True)])
        cost = projector.deltas(counts, widths - counts)
        loss = losses - now
        for group in np.flatnonzero((counts == 0) != (widths == 0)):  # not the sum of their parts
            moved = projector.space.moved(counts, group, widths[group])
            loss[group] = table(moved) - table(counts)
        parts.append(Moves(np.arange(len(counts)), widths, cost, loss))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    moves = Moves(*(np.concatenate(column) for column in columns))
    return moves.only(moves.width != counts[moves.group])

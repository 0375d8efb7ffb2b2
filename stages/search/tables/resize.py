"""A plan brought to another budget, by the steps that a loss table prefers."""

from __future__ import annotations

import numpy as np

from pipeline.channels.counts import Counts
from stages.search.space.projection import Projector
from stages.search.tables.exchange import Moves, single_moves
from stages.search.tables.loss_table import LossTable


def resized(table: LossTable, projector: Projector, counts: Counts) -> Counts:
    """Counts (G,) that fit the budget and fill it, near `counts`; the smallest where none fits.

    Groups become narrower where that loses least for what it saves, until the budget is met; then
    wider where it gains most for what it costs, while one fits. What a strategy has learned stays
    where the budget does not ask otherwise, unlike with `solve`, which forgets where it started.
    """
    return _widened(table, projector, _narrowed(table, projector, counts))


def _narrowed(table: LossTable, projector: Projector, counts: Counts) -> Counts:
    while not projector.fits(counts):
        moves = single_moves(table, projector, counts)
        moves = moves.only(moves.cost < 0)
        if not len(moves.group):
            return projector.space.least
        # of two steps that both suffice, the one that loses less: what it saves beyond is not asked
        excess = projector.cost.of(counts) - projector.limit
        rate = moves.loss / np.minimum(-moves.cost, excess)
        counts = _after(projector, counts, moves, int(rate.argmin()))
    return counts


def _widened(table: LossTable, projector: Projector, counts: Counts) -> Counts:
    while True:
        moves = single_moves(table, projector, counts)
        gains = moves.loss < 0
        room = projector.limit - projector.cost.of(counts)
        moves = moves.only(gains & (moves.cost <= room))
        if not len(moves.group):
            return counts
        rate = moves.loss / np.maximum(moves.cost, 1e-9 * projector.limit)
        counts = _after(projector, counts, moves, int(rate.argmin()))


def _after(projector: Projector, counts: Counts, moves: Moves, chosen: int) -> Counts:
    return projector.space.moved(counts, moves.group[chosen], moves.width[chosen])

"""The optimum over groups whose costs add up: a dynamic programme over (cost, loss) pairs.

Groups that meet in no layer have costs that add up while all others are held. Group by group, all
sums of what was and what its widths add are formed, and of any two the one that both costs and
loses more is dropped. What is left at the end holds the optimum of every budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Array, Counts
from stages.search.space.projection import Projector
from stages.search.tables.loss_table import LossTable

MOST = 2048  # pairs that are kept; of more, the best in each of so many equal parts of the budget

Groups = NDArray[np.int64]
"""Places of some groups."""


def separable_sets(projector: Projector) -> list[Groups]:
    """Every group in at least one set, none meeting another of its set in a layer; sets are as
    large as they can be.
    """
    meets = _meets(projector)
    sets: list[Groups] = []
    left = list(np.argsort(meets.sum(1), kind="stable"))  # those that meet few go together
    order = list(left)
    while left:
        chosen: list[int] = []
        for group in [*left, *order]:
            if group not in chosen and not meets[group, chosen].any():
                chosen.append(int(group))
        sets.append(np.array(sorted(chosen), dtype=np.int64))
        left = [group for group in left if group not in chosen]
    return sets


def _meets(projector: Projector) -> NDArray[np.bool_]:
    """(G, G): whether what a step of one group costs depends on the other's width."""
    space, cost = projector.space, projector.cost
    whole, steps = space.sizes, space.floors - space.sizes
    alone, slack = cost.deltas(whole, steps), 1e-9 * cost.of(whole)
    found = np.zeros((len(space), len(space)), dtype=bool)
    for group in range(len(space)):
        lowered = space.moved(whole, group, space.least[group])
        found[group] = np.abs(cost.deltas(lowered, steps) - alone) > slack
    found |= found.T | space.mates  # rounding to blocks may hide it one way
    np.fill_diagonal(found, False)
    return found


@dataclass(frozen=True)
class _Pairs:
    """Costs and losses (n,) of which none is beaten in both, and where each came from."""

    cost: Array
    loss: Array
    before: NDArray[np.int64]
    width: NDArray[np.int64]


def best_of_separable(
    table: LossTable, projector: Projector, counts: Counts, movable: Groups
) -> Counts:
    """Counts (G,) of least predicted loss within the budget that differ in `movable` only.

    Args:
        counts: within the budget; they are what comes back where nothing is better.
        movable: groups that do not meet.
    """
    low = counts
    for group in movable:
        low = projector.space.moved(low, group, projector.space.floors[group])
    changes = [_changes(table, projector, low, int(group)) for group in movable]
    room = projector.limit - projector.cost.of(low) - sum(cost[0] for cost, _ in changes)
    room = max(room, 0.0)  # these counts are within the budget, but for round-off
    one = np.zeros(1)
    layers = [_Pairs(one, one, one.astype(np.int64), one.astype(np.int64))]
    for cost, loss in changes:
        layers.append(_joined(layers[-1], cost - cost[0], loss, room))
    found, at = counts, len(layers[-1].cost) - 1  # the most expensive loses least
    for group, layer in zip(movable[::-1], layers[:0:-1], strict=True):
        found = projector.space.moved(found, group, table.widths[group][layer.width[at]])
        at = layer.before[at]
    better = projector.fits(found) and table(found) < table(counts)
    return found if better else counts


def _changes(
    table: LossTable, projector: Projector, low: Counts, group: int
) -> tuple[Array, Array]:
    """What each width of a group costs and loses beyond what its floor does, (widths,) each."""
    widths, losses = table.widths[group], table.losses[group]
    rows = np.array([projector.space.moved(low, group, width) for width in widths])
    cost, loss = projector.cost.each(rows) - projector.cost.of(low), losses - losses[-1]
    if not widths[0]:  # other groups may go with it
        loss[0] = loss[1] + table(rows[0]) - table(rows[1])
    return cost, loss


def _joined(pairs: _Pairs, added: Array, losses: Array, room: float) -> _Pairs:
    cost = (pairs.cost[:, None] + added).ravel()
    loss = (pairs.loss[:, None] + losses).ravel()
    inside = np.flatnonzero(cost <= room)
    order = inside[np.argsort(cost[inside], kind="stable")]
    falling = loss[order]
    lowest = np.minimum.accumulate(falling)
    order = order[np.append(True, falling[1:] < lowest[:-1])]
    if len(order) > MOST:
        part = np.floor(cost[order] / room * MOST)
        order = order[np.append(part[1:] != part[:-1], True)]  # the last of a part loses least
    return _Pairs(cost[order], loss[order], order // len(added), order % len(added))

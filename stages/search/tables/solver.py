"""The widths of least predicted loss within a budget.

Losses add up over the groups, costs do not: a layer's cost is a product of the widths on both its
sides. So the plan is found in steps, each by the true cost:

    descend    from the whole network, always the step, or the branch, that loses least for what it
               saves
    exact      a dynamic programme over groups that meet in no layer, the others held
    exchange   wider here for narrower there, until no pair of moves gains anything

Where no two groups meet, the dynamic programme is over all of them, and the plan is the optimum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.channels.counts import Array, Counts
from stages.search.space.projection import Projector
from stages.search.tables.exact import best_of_separable, separable_sets
from stages.search.tables.exchange import exchange
from stages.search.tables.loss_table import LossTable

AHEAD = (
    4  # corners of the hull that a step may skip: a step within the runtime's block saves nothing
)
ROUNDS = 8  # of exact and exchange; two or three are usual


def solve(table: LossTable, projector: Projector) -> Counts:
    """Counts (G,) that fit the budget; never of more predicted loss than the uniform ones."""
    keeping = projector.keeping_branches
    starts = [descend(table, projector), keeping.logits(np.zeros(len(projector.space)))]
    if keeping is not projector:
        starts.append(descend(table.staying, keeping))
    return min((improve(table, projector, counts) for counts in starts), key=table)


def improve(table: LossTable, projector: Projector, counts: Counts) -> Counts:
    """Counts (G,) within the budget that lose no more than these, which are within it."""
    sets = separable_sets(projector)
    for _ in range(ROUNDS):
        before = table(counts)
        for movable in sets:
            counts = best_of_separable(table, projector, counts, movable)
        counts = exchange(table, projector, counts)
        if table(counts) >= before:
            break
    return counts


def descend(table: LossTable, projector: Projector) -> Counts:
    """From the whole network along the lower convex hulls of the losses, into the budget."""
    return next(counts for counts in descent(table, projector) if projector.fits(counts))


def descent(table: LossTable, projector: Projector) -> Iterator[Counts]:
    """The whole network, and counts (G,) after each step down, until no step saves anything.

    They do not depend on the budget's size. At every step a branch may go instead, and does not
    come back.
    """
    space, cost = projector.space, projector.cost
    hulls = [_hull(*pair) for pair in zip(table.widths, table.losses, strict=True)]
    place = np.zeros(len(space), dtype=np.int64)
    counts, least = space.sizes.copy(), 1e-9 * cost.of(space.sizes)
    while True:
        yield counts.copy()
        best = np.inf, 0, 0
        for steps, lost, skipped in _corners(table, hulls, place, counts):
            saved = -cost.deltas(counts, steps)
            rate = np.where(steps < 0, lost / np.maximum(saved, least), np.inf)
            group = int(rate.argmin())
            if rate[group] < best[0]:
                best = float(rate[group]), group, skipped
        going = _going(table, projector, counts, least)
        if going is not None and going[0] < best[0]:
            counts = going[1]
            continue
        if best[0] == np.inf:
            return
        _, group, skipped = best
        place[group] = min(place[group] + skipped, len(hulls[group]) - 1)
        counts[group] = table.widths[group][hulls[group][place[group]]]


def _going(
    table: LossTable, projector: Projector, counts: Counts, least: float
) -> tuple[float, Counts] | None:
    """The branch that loses least for what it saves: that rate, and counts (G,) without it."""
    space, cost = projector.space, projector.cost
    rows = [space.moved(counts, places[0], 0) for places in space.branches if counts[places[0]]]
    if not rows:
        return None
    saved = cost.of(counts) - cost.each(np.array(rows))
    lost = np.array([table(row) for row in rows]) - table(counts)
    rate = lost / np.maximum(saved, least)
    best = int(rate.argmin())
    return float(rate[best]), rows[best]


def _corners(
    table: LossTable, hulls: list[NDArray[np.int64]], place: Counts, counts: Counts
) -> Iterator[tuple[Counts, Array, int]]:
    """Steps (G,) to the next corners of all hulls, what they lose (G,), and how far they go."""
    for skipped in range(1, AHEAD + 1):
        steps, lost = np.zeros_like(counts), np.zeros(len(counts))
        for group, hull in enumerate(hulls):
            there = hull[min(place[group] + skipped, len(hull) - 1)]
            steps[group] = table.widths[group][there] - counts[group]
            losses = table.losses[group]
            lost[group] = losses[there] - losses[hull[place[group]]]
        yield steps, lost, skipped


def _hull(widths: Counts, losses: Array) -> NDArray[np.int64]:
    """Places of the corners of the lower convex hull, from the whole group to its floor."""
    corners: list[int] = []
    floor = int(widths[0] == 0)
    for here in range(len(widths) - 1, floor - 1, -1):
        while len(corners) > 1 and _above(widths, losses, corners[-2], corners[-1], here):
            corners.pop()
        corners.append(here)
    return np.array(corners, dtype=np.int64)


def _above(widths: Counts, losses: Array, left: int, middle: int, right: int) -> bool:
    """Whether the middle of three places lies on or above the line through the others."""
    rise = (losses[right] - losses[left]) * (widths[left] - widths[middle])
    return bool((losses[middle] - losses[left]) * (widths[left] - widths[right]) >= rise)

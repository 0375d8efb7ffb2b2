"""A plan brought to another budget by the steps that a loss table prefers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from search_tasks import chain

from stages.search.space import Projector, Space
from stages.search.tables import LossTable, resized


def table_of(space: Space, falls: list[float]) -> LossTable:
    """Each group loses `falls` nats at its floor, in proportion to what is cut."""
    widths = [space.widths(group) for group in range(len(space))]
    losses = [
        fall * (own[-1] - own) / max(own[-1] - own[0], 1)
        for fall, own in zip(falls, widths, strict=True)
    ]
    return LossTable(tuple(widths), tuple(np.asarray(own, dtype=float) for own in losses))


def posed(share: float) -> tuple[Projector, Space]:
    space, cost = chain([48, 48, 48, 48])
    return Projector.fraction(space, cost, share), space


def test_what_fits_and_fills_the_budget_stays() -> None:
    projector, space = posed(0.5)
    counts = projector.logits(np.array([1.0, -1.0, 0.5, 0.0]))
    narrow = projector.with_limit(projector.cost.of(counts))
    assert (
        resized(table_of(space, [1.0, 1.0, 1.0, 1.0]), narrow, counts).tolist() == counts.tolist()
    )


def test_what_loses_little_goes_first_and_what_loses_much_comes_back_first() -> None:
    projector, space = posed(0.5)
    table = table_of(space, [5.0, 0.01, 5.0, 5.0])
    smaller = resized(
        table, projector.with_limit(0.8 * projector.cost.of(space.sizes)), space.sizes
    )
    assert smaller[1] < 48
    assert smaller[[0, 2, 3]].tolist() == [48, 48, 48], "one cheap group has what is asked for"
    larger = resized(
        table, projector.with_limit(2.0 * projector.cost.of(space.floors)), space.floors
    )
    assert larger[1] == space.floors[1]
    assert max(larger[[0, 2, 3]]) > space.floors[0]


@pytest.mark.parametrize("seed", range(12))
def test_any_plan_fits_any_reachable_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space, cost = chain(rng.integers(8, 49, 5).tolist())
    if seed % 2:
        space = replace(space, branches=((1, 2),))
    table = table_of(space, rng.gamma(0.5, size=5).tolist())
    start = Projector.fraction(space, cost, 0.9).logits(rng.standard_normal(5))
    least = cost.of(space.least) / cost.of(space.sizes)
    projector = Projector.fraction(space, cost, least + (1 - least) * rng.uniform(0.02, 0.98))
    found = resized(table, projector, start)
    assert projector.fits(found)
    for group, width in enumerate(found):
        assert width in table.widths[group] or width == 0
    assert resized(table, projector, found).tolist() == found.tolist(), "nothing is left to do"


def test_a_budget_below_everything_gives_the_smallest() -> None:
    projector, space = posed(0.5)
    found = resized(table_of(space, [1.0] * 4), projector.with_limit(0.0), space.sizes)
    assert found.tolist() == space.least.tolist()


def test_a_sensitive_group_is_spared_where_a_shift_of_all_would_halve_it() -> None:
    """Finalists that were timed above their budget were made smaller everywhere alike, and lost
    what the search had found."""
    projector, space = posed(0.5)
    table = table_of(space, [0.0, 0.02, 8.0, 0.02])
    start = np.array([24, 32, 40, 32])
    narrow = projector.with_limit(0.6 * projector.cost.of(start))
    shifted = narrow.logits(space.logits(start))
    found = resized(table, narrow, start)
    assert found[2] >= 40 > shifted[2]
    assert table(found) < 0.1 * table(shifted)

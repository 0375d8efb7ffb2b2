"""From a sweep to the channel multiple that pays."""

from __future__ import annotations

import json
import math

import pytest

from stages.benchmark.alignment import WIDTHS, WidthTime, alignment_of, measure_alignment


def blocked(block: int, penalty: float = 1.0) -> list[WidthTime]:
    """A machine that rounds widths up to `block`, and where widths off 4 leave the fast layout."""
    rows = []
    for kind, power in (("conv 3x3", 2), ("conv 1x1", 2), ("depthwise 3x3", 1)):
        for width in WIDTHS:
            padded = math.ceil(width / block) * block
            rows.append(
                WidthTime(kind, width, padded**power * (penalty if width % 4 else 1.0) / 100)
            )
    return rows


@pytest.mark.parametrize("block", [8, 16])
def test_finds_the_block(block: int) -> None:
    multiple, cost = alignment_of(blocked(block, penalty=3.0))
    assert multiple == block
    assert cost[2] > 2
    assert min(cost.values()) == 1.0


def test_a_machine_without_blocks_takes_any_width() -> None:
    assert alignment_of(blocked(1))[0] == 2  # the smallest multiple in the sweep


def test_measures_every_kind_on_this_machine() -> None:
    ticks: list[tuple[int, int]] = []
    found = measure_alignment(
        widths=(6, 8, 16),
        size=4,
        min_time=0.001,
        repeats=1,
        progress=lambda *tick: ticks.append(tick),
    )
    assert {(row.kind, row.channels) for row in found.rows} == {
        (kind, width) for kind in ("conv 3x3", "conv 1x1", "depthwise 3x3") for width in (6, 8, 16)
    }
    assert all(row.us > 0 for row in found.rows)
    assert found.multiple in found.cost
    assert ticks[-1] == (18, 18)
    assert len(found.machine) == 16
    assert json.loads(json.dumps(found.to_dict()))["cost"]

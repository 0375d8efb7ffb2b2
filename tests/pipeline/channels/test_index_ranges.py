"""Index lists as text: the round trip, and what a hostile file may not do."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.channels.index_ranges import count_ranges, format_ranges, parse_ranges


@given(st.lists(st.integers(0, 40)))
def test_round_trip_keeps_order_and_repeats(indices: list[int]) -> None:
    assert parse_ranges(format_ranges(indices)) == tuple(indices)


def test_ascending_runs_are_joined() -> None:
    assert format_ranges((0, 1, 2, 3, 8)) == "0-3,8"


@pytest.mark.parametrize("text", ["1-", "2-1", "a", "-1", "0,,1", "0-" + "9" * 5000])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_ranges(text)


@pytest.mark.parametrize("text", ["0-16777216", "0-99999999999999999999", "0-9000000,0-9000000"])
def test_long_ranges_are_refused_before_they_are_expanded(text: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than"):
        parse_ranges(text)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_caller_may_allow_less() -> None:
    assert parse_ranges("4-6", most=3) == (4, 5, 6)
    with pytest.raises(ValueError, match="more than 2"):
        parse_ranges("4-6", most=2)


def test_indices_are_counted_without_making_them() -> None:
    assert count_ranges("0-3,8,7-99999999999999") == 5 + 99999999999993
    assert count_ranges("") == 0

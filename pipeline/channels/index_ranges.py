"""Integer lists as text: 0, 1, 2, 3, 8 is "0-3,8"."""

from __future__ import annotations

from collections.abc import Sequence

# All indices of one document together: many times what the largest torchvision network has. As
# Python integers they take 600 MB, and "0-99999999999" is thirteen bytes in a hostile file.
MAX_INDICES = 1 << 24


def format_ranges(indices: Sequence[int]) -> str:
    """Text of integers >= 0, ascending runs joined; order and repeats survive the round trip."""
    if not indices:
        return ""
    parts = []
    start = last = indices[0]
    for index in indices[1:]:
        if index != last + 1:
            parts.append(f"{start}-{last}" if last > start else f"{start}")
            start = index
        last = index
    parts.append(f"{start}-{last}" if last > start else f"{start}")
    return ",".join(parts)


def parse_ranges(text: str, *, most: int = MAX_INDICES) -> tuple[int, ...]:
    """Inverse of `format_ranges`.

    Raises:
        ValueError: anything else, or more than `most` indices; nothing is expanded before they
            have been counted.
    """
    if count_ranges(text) > most:
        raise ValueError(f"more than {most} indices")
    ranges = _all_bounds(text)
    return tuple(index for start, stop in ranges for index in range(start, stop))


def count_ranges(text: str) -> int:
    """How many indices `parse_ranges` would give; none is expanded.

    Raises:
        ValueError: not such a text.
    """
    return sum(stop - start for start, stop in _all_bounds(text))


def _all_bounds(text: str) -> list[tuple[int, int]]:
    return [_bounds(part) for part in text.split(",")] if text else []


def _bounds(part: str) -> tuple[int, int]:
    """First index and the one after the last."""
    first, dash, last = part.partition("-")
    start, stop = int(first), int(last if dash else first)
    if not 0 <= start <= stop:
        raise ValueError(f"not a range of indices: {part[:40]!r}")
    return start, stop + 1

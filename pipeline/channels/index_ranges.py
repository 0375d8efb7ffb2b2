"""Integer lists as text: 0, 1, 2, 3, 8 is "0-3,8"."""

from __future__ import annotations

from collections.abc import Sequence

MAX_INDEX = (
    1 << 24
)  # no dimension of a network is longer; keeps a hostile file from filling the memory


def runs_of(indices: Sequence[int]) -> str:
    """Text of a list of integers >= 0, ascending runs joined; any order and repeats survive the
    round trip.
    """
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


def indices_of(text: str) -> tuple[int, ...]:
    """Inverse of `runs_of`. Raises ValueError on anything else."""
    found: list[int] = []
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        start, stop = int(first), int(last if dash else first)
        if not 0 <= start <= stop < MAX_INDEX or len(found) > MAX_INDEX:
            raise ValueError(f"not a run of indices: {part!r}")
        found.extend(range(start, stop + 1))
    return tuple(found)

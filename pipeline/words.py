"""Phrases of messages that many modules put together alike."""

from __future__ import annotations

from collections.abc import Sequence


def first_three(phrases: Sequence[str], separator: str = ", ") -> str:
    """The first three, and how many more there are."""
    more = f" and {len(phrases) - 3} more" if len(phrases) > 3 else ""
    return separator.join(phrases[:3]) + more


def count_of(number: int, thing: str) -> str:
    """`1 image`, `1,200 images`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def agreeing(number: int, one: str, many: str) -> str:
    """`1 layer takes`, `1,200 layers take`: where a verb agrees with the number too."""
    return f"{number:,} {one if number == 1 else many}"


def as_text(name: str) -> str:
    """The name of a file as it can be written down: bytes of it that are no UTF-8, which Python
    holds as half characters, become `\\udcff`.
    """
    return name.encode(errors="backslashreplace").decode()


def size(n: float) -> str:
    """`812 B`, `3.4 kB`, `1.2 MB`, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"

"""How a table fits a terminal: numbers stay whole, and no word is broken.

Where it is too wide, columns that say the same in every row go into one line; then texts are folded
between words; and where even their longest words have no room, every row becomes a few lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

GAP = 2  # spaces between columns
_LONGEST_WORD = 28  # of a path or a hash, say: longer ones may be folded
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:ms|µs|s|min|B|kB|MB|GB|%|to)(?!\w))")

Rows = Sequence[Sequence[str]]


class Layout(NamedTuple):
    """What is drawn.

    Attributes:
        columns: indices of those that are drawn.
        widths: of these columns; empty where rows are to be written below each other.
        common: (column, value) of what every row says.
    """

    columns: list[int]
    widths: list[int]
    common: list[tuple[str, str]]


def lay_out(
    names: Sequence[str],
    rows: Rows,
    room: int,
    rigid: Collection[str] = (),
    length: Callable[[str], int] = len,
) -> Layout:
    """The layout of a table in `room` cells of a terminal.

    Args:
        rigid: names of columns that are better not folded.
        length: cells that a text takes.
    """
    every = list(range(len(names)))
    if (widths := _widths(names, rows, every, room, rigid, length, fold=False)) is not None:
        return Layout(every, widths, [])
    same = [at for at in every[1:] if len(rows) > 1 and len({row[at] for row in rows}) == 1]
    left = [at for at in every if at not in same]
    common = [(names[at], rows[0][at]) for at in same]
    widths = _widths(names, rows, left, room, rigid, length)
    if widths is None:
        widths = _widths(names, rows, left, room, (), length)
    return Layout(left, widths or [], common)


def _widths(
    names: Sequence[str],
    rows: Rows,
    columns: Sequence[int],
    room: int,
    rigid: Collection[str],
    length: Callable[[str], int],
    *,
    fold: bool = True,
) -> list[int] | None:
    """Widths of the columns; None where they do not fit."""
    cells = [[names[at], *(row[at] for row in rows)] for at in columns]
    wanted = [max(map(length, column), default=0) for column in cells]
    least = [
        min(wide, _least(column, length)) if fold and column[0] not in rigid else wide
        for wide, column in zip(wanted, cells, strict=True)
    ]
    spare = room - sum(least) - GAP * (len(columns) - 1)
    if spare < 0:
        return None
    # in proportion to what they lack, so that none becomes much taller than the others
    lack = [wide - small for wide, small in zip(wanted, least, strict=True)]
    part = min(1.0, spare / max(1, sum(lack)))
    return [small + int(part * missing) for small, missing in zip(least, lack, strict=True)]


def _least(column: Sequence[str], length: Callable[[str], int]) -> int:
    """Cells for the longest word of a column; its name is never cut."""
    words = max((length(word) for cell in column for word in _words(cell)), default=0)
    name = max(map(length, column[0].split()), default=0)
    return max(name, min(words, _LONGEST_WORD))


def _words(cell: str) -> list[str]:
    """What no line break falls into: words, numbers with their units, and `1.83 to`."""
    return _BEFORE_UNIT.sub("_", cell).split()

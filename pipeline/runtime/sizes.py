"""Sizes of what a session is fed: the batch comes first, and no other open size is guessed.

`filled` is loaded by path in the child process too, so this module imports the standard library
only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Dim = int | str | None
"""A fixed size, the name of an open one, or None for an open one without a name."""


def filled(name: str, dims: Sequence[Dim], batch: int, given: Any) -> list[int | None]:
    """The sizes of an input; None for one that the file leaves open and nobody gave.

    Args:
        batch: of the first dimension, where it is open.
        given: sizes after the batch; or a mapping of them by an input's name, of single sizes by an
            open dimension's name, and of the sizes of all other inputs by "".
    """
    named: Any = given if isinstance(given, Mapping) else {"": given or ()}
    after = list(named.get(name) or named.get("") or ())
    fits = len(after) == len(dims) - 1
    found: list[int | None] = []
    for axis, dim in enumerate(dims):
        if isinstance(dim, int) and dim > 0:  # some exporters write 0 or -1 for an open size
            found.append(dim)
        elif dim in named and dim not in ("", name):
            found.append(int(named[dim][0]))
        elif axis == 0 or (dim and dim == dims[0]):
            found.append(batch)
        else:
            found.append(int(after[axis - 1]) if fits else None)
    return found


def images_a_call(dims: Sequence[Dim]) -> int | None:
    """Images that the first input fixes; None where its batch is open.

    One image of three dimensions has no batch at all: channels first or last, 1 or 3 of them.
    """
    if not dims or not isinstance(dims[0], int) or dims[0] < 1:
        return None if dims else 1
    if len(dims) == 1 or (len(dims) == 3 and {dims[0], dims[2]} & {1, 3}):
        return 1
    return dims[0]


def text(dims: Sequence[Dim]) -> str:
    """`batch×3×h×w`; an open size without a name is a question mark."""
    return "×".join("?" if dim is None else str(dim) for dim in dims) or "one number"

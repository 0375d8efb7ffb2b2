"""How sizes in forward are read that nothing but a trial can tell the meaning of."""

from __future__ import annotations

from enum import Enum


class Reading(Enum):
    """Which of the sizes at a site (a source line and an operator) follows the channels.

    `x.view(b, 2, c // 2, h, w)` of 4 channels gives

        dimension 1   0 1
        dimension 2   0 1     channel = 2 * (index along 1) + (index along 2)

    INNER: 2 stays and c // 2 shrinks, so channels 0 and 2 are one unit, 1 and 3 another.
    OUTER: the first size shrinks and the second stays, so channels 0 and 1 are one unit.
    FIXED: no size follows, all channels that pass the site stay.

    For a convolution by groups INNER takes equal positions out of all groups, OUTER whole groups.

    Where an activation is cut at given points, as by `x[:, :n]` or `x.split([n, m], 1)`, the first
    reading is another one.

    PIECES: every point follows what lies before it, so that each piece loses units for itself. With
    INNER, equal positions of all pieces are one unit.
    """

    PIECES = "pieces"
    INNER = "inner"
    OUTER = "outer"
    FIXED = "fixed"

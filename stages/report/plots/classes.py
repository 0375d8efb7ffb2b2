"""Which classes are taken for which, where they are too many for a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.report.plots.drawing import one_panel, styled, svg

_BLUE, _ORANGE = (0.23, 0.51, 0.96), (0.92, 0.35, 0.05)


@styled
def confusion(table: Sequence[Sequence[int]]) -> str:
    """Shares of each true class (row) that are given each name (column), the darker the more.

    Args:
        table: counts by true and named class.
    """
    counts = np.asarray(table, float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = np.empty((*shares.shape, 4))
    picture[..., :3] = _ORANGE
    picture[np.diag_indices(len(shares))] = (*_BLUE, 1)
    picture[..., 3] = np.sqrt(shares)  # a few per cent show as well
    figure, axes = one_panel(4.2)
    axes.imshow(picture, interpolation="nearest")
    axes.set_xlabel("named class, by index")
    axes.set_ylabel("true class, by index")
    right = 100 * np.trace(counts) / max(counts.sum(), 1)
    return svg(
        figure,
        "Confusion of the classes",
        f"{len(counts)} classes; {right:.2f} % of the images lie on the diagonal.",
    )

"""What training after the cut gave."""

from __future__ import annotations

from collections.abc import Sequence

from stages.report.plots.drawing import BLUE, ORANGE, one_panel, styled, svg


@styled
def distillation_curve(
    epochs: Sequence[int], accuracy: Sequence[float], start: float | None, teacher: float | None
) -> str:
    """Accuracy on the search split an epoch, from the re-estimated start to the teacher's level.

    Args:
        accuracy: fractions, one an epoch; `start` and `teacher` likewise.
    """
    figure, axes = one_panel(7.5, 2.6)
    axes.plot(epochs, [100 * a for a in accuracy], "o-", color=BLUE, label="student", markersize=3)
    for value, label, style in ((teacher, "teacher", "--"), (start, "after the cut", ":")):
        if value is not None:
            axes.axhline(100 * value, color=ORANGE, linestyle=style, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on search, %")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)

"""What was timed: both files against each other, and convolutions by their width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.report.plots.drawing import BLUE, GREY, ORANGE, one_panel, panels, points, styled, svg


@styled
def speedups(rows: Sequence[tuple[str, float, float, float]], control: float) -> str:
    """Speedup with its 95 % interval, one row a setting.

    Args:
        rows: (name, ratio, low, high).
        control: half-width of the band in which the base against itself lies.
    """
    figure, axes = one_panel(7.5, 0.9 + 0.32 * len(rows))
    for place, (_, ratio, low, high) in enumerate(rows):
        # matplotlib takes none below 0, and rounding may give one
        error = [[max(0.0, ratio - low)], [max(0.0, high - ratio)]]
        axes.errorbar(ratio, place, xerr=error, fmt="o", color=BLUE, capsize=3)
    axes.axvline(1, color=GREY)
    noise = "spread of the base against itself"
    axes.axvspan(1 - control, 1 + control, color=GREY, alpha=0.4, label=noise)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.set_xlabel("times as fast as the base")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return svg(figure)


@styled
def float_nodes(rows: Sequence[tuple[float, float, float, float, int]]) -> str:
    """Accuracy against speed as more nodes go back to float32, each point with their number.

    Args:
        rows: (ratio to fp32, its low and high end, accuracy as a fraction, float nodes).
    """
    figure, axes = one_panel(7.5, 2.8)
    by_count = sorted(rows, key=lambda row: row[4])
    points(axes, [(row[0], 100 * row[3]) for row in by_count], "-", color=GREY, zorder=1)
    for ratio, low, high, accuracy, count in by_count:
        error = [[max(0.0, ratio - low)], [max(0.0, high - ratio)]]
        axes.errorbar(ratio, 100 * accuracy, xerr=error, fmt="o", color=BLUE, capsize=3)
        place = (ratio, 100 * accuracy)
        axes.annotate(str(count), place, (4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("times as fast as fp32")
    axes.set_ylabel("accuracy on search, %")
    return svg(figure)


@styled
def alignment(times: Mapping[str, Sequence[tuple[int, float]]], multiple: int) -> str:
    """Microseconds a channel by width, one panel a kind of convolution; what pays stands out.

    Args:
        times: by kind, (channels, microseconds of one layer), in any order.
        multiple: what channel counts should be a multiple of.
    """
    figure, drawn = panels(len(times), 2.3)
    for axes, (kind, rows) in zip(drawn, times.items(), strict=True):
        by_width = [(width, us / width) for width, us in sorted(rows)]
        points(axes, by_width, "-", color=GREY, zorder=1)
        pays = f"multiple of {multiple}"
        for good, color, label in ((True, BLUE, pays), (False, ORANGE, "any other")):
            chosen = [point for point in by_width if (point[0] % multiple == 0) is good]
            if chosen:
                points(axes, chosen, "o", color=color, markersize=4, label=label)
        axes.set_title(kind, fontsize=9)
        axes.set_xlabel("channels")
        axes.set_ylim(bottom=0)  # or a few per cent would look like a cliff
    drawn[0].set_ylabel("µs a channel")
    drawn[0].legend(frameon=False, fontsize=7)
    return svg(figure)

"""What was timed: files against each other, their calls, their layers, convolutions by width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from stages.report.plots.drawing import (
    BLUE,
    GREY,
    MID,
    ORANGE,
    fitting,
    least_span,
    legend_above,
    one_panel,
    panels,
    points,
    styled,
    svg,
)

_LINES = ((MID, "-"), (MID, ":"), (BLUE, "-"), (BLUE, ":"))


@styled
def speedups(rows: Sequence[tuple[str, float, float, float, float, float]]) -> str:
    """Speedup with its 95 % interval, one row a setting, each over its own control.

    Args:
        rows: (name, ratio, low, high, low and high end of the original against itself).
    """
    figure, axes = one_panel(0.95 + 0.36 * len(rows))
    for place, (_, ratio, low, high, aa_low, aa_high) in enumerate(rows):
        control = "original against itself" if not place else None
        axes.barh(place, aa_high - aa_low, 0.62, aa_low, color=GREY, alpha=0.6, label=control)
        # matplotlib takes none below 0, and rounding may give one
        error = [[max(0.0, ratio - low)], [max(0.0, high - ratio)]]
        said = "delivered file, 95 % interval" if not place else None
        axes.errorbar(ratio, place, xerr=error, fmt="o", color=BLUE, capsize=3, label=said)
    axes.use_sticky_edges = False  # a band that begins at the edge looks cut off
    axes.axvline(1, color=MID, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("times as fast as the original")
    legend_above(figure, axes)
    found = "; ".join(
        f"{name}: {ratio:.2f} ({lo:.2f} to {hi:.2f})" for name, ratio, lo, hi, *_ in rows
    )
    return svg(figure, "Speedup at every setting", found)


@styled
def distributions(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Which share of its calls each file ends within a time.

    Args:
        curves: by name (per cent of the calls, milliseconds), rising.
    """
    figure, axes = one_panel(3.0)
    for (name, curve), (color, line) in zip(curves.items(), _LINES, strict=False):
        axes.plot(
            [ms for _, ms in curve], [share for share, _ in curve], line, color=color, label=name
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 100)
    axes.set_xlabel("latency of a call, ms (log)")
    axes.set_ylabel("calls within it, %")
    legend_above(figure, axes)
    ends = "; ".join(
        f"{name} from {curve[0][1]:.3f} ms ({curve[0][0]:g} %) to {curve[-1][1]:.3f} ms "
        f"({curve[-1][0]:g} %)"
        for name, curve in curves.items()
    )
    return svg(figure, "Distribution of the latency of single calls", ends)


@styled
def layer_times(rows: Sequence[tuple[str, float, float]]) -> str:
    """Microseconds of layers before and after, one pair of bars a layer.

    Args:
        rows: (name, before, after).
    """
    figure, axes = one_panel(0.7 + 0.3 * len(rows))
    for place, (_, before, after) in enumerate(rows):
        named = not place
        axes.barh(place - 0.19, before, 0.36, color=GREY, label="original" if named else None)
        axes.barh(place + 0.19, after, 0.36, color=BLUE, label="delivered" if named else None)
    axes.set_yticks(range(len(rows)), [fitting(name) for name, *_ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("µs a call")
    legend_above(figure, axes)
    found = "; ".join(f"{name}: {before:.0f} to {after:.0f}" for name, before, after in rows)
    return svg(figure, "Microseconds of each layer before and after", found)


@styled
def float_nodes(rows: Sequence[tuple[float, float, float, float, int]]) -> str:
    """Accuracy against speed as more nodes go back to float32, each point with their number.

    Args:
        rows: (ratio to fp32, its low and high end, accuracy as a fraction, float nodes).
    """
    figure, axes = one_panel(2.8)
    by_count = sorted(rows, key=lambda row: row[4])
    points(axes, [(row[0], 100 * row[3]) for row in by_count], "-", color=GREY, zorder=1)
    for ratio, low, high, accuracy, count in by_count:
        error = [[max(0.0, ratio - low)], [max(0.0, high - ratio)]]
        axes.errorbar(ratio, 100 * accuracy, xerr=error, fmt="o", color=BLUE, capsize=3)
        place = (ratio, 100 * accuracy)
        axes.annotate(str(count), place, (4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("times as fast as fp32")
    axes.set_ylabel("accuracy on search, %")
    least_span(axes, 1.0)
    found = "; ".join(
        f"{count} float nodes: {ratio:.2f} times as fast, {100 * accuracy:.2f} %"
        for ratio, _, _, accuracy, count in by_count
    )
    return svg(figure, "Accuracy against speed by the number of float nodes", found)


@styled
def alignment(times: Mapping[str, Sequence[tuple[int, float]]], multiple: int) -> str:
    """Microseconds a channel by width, one panel a kind of convolution; what pays stands out.

    Args:
        times: by kind, (channels, microseconds of one layer), in any order.
        multiple: what channel counts should be a multiple of.
    """
    figure, drawn = panels(len(times), 1.6)
    for axes, (kind, rows) in zip(drawn, times.items(), strict=True):
        by_width = [(width, us / width) for width, us in sorted(rows)]
        points(axes, by_width, "-", color=GREY, zorder=1)
        pays = f"multiple of {multiple}"
        for good, color, label in ((True, BLUE, pays), (False, ORANGE, "any other")):
            chosen = [point for point in by_width if (point[0] % multiple == 0) is good]
            if chosen:
                points(axes, chosen, "o", color=color, markersize=4, label=label)
        axes.set_title(kind, loc="left")
        axes.set_ylabel("µs a channel")
        axes.set_ylim(bottom=0)  # or a few per cent would look like a cliff
    drawn[-1].set_xlabel("channels")
    legend_above(figure, drawn[0])
    return svg(
        figure,
        "Microseconds a channel by the number of channels",
        f"{', '.join(times)}: channel counts that are multiples of {multiple} against all others.",
    )

"""Every file at every setting, the spread of its calls, and the machine's limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.run.variants import VARIANTS
from pipeline.words import count_of, first_three
from stages.report import plots
from stages.report.views.wording import NO_DIFFERENCE, interval, ms, provider, setting_name

Row = Mapping[str, Any]


def setting_tables(benchmark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table a setting: its name, a row for every file, the original first, and notes.

    The original's own interval is that of the control.
    """
    return [
        {
            "name": f"{provider(first['provider'])}, {setting_name(first)}",
            "rows": list(_rows(benchmark, number)),
            "notes": list(_notes(first)),
        }
        for number, first in enumerate(benchmark["settings"])
    ]


def _notes(first: Row) -> Iterator[str]:
    """What was left out of the times, and what did not run where it should."""
    if copies := first.get("copies_ms"):
        yield (
            "Copies to and from the device are not in these times: "
            f"{ms(copies['a'])} ms for the original, {ms(copies['b'])} ms for the delivered file."
        )
    if nodes := first.get("fallback_nodes"):
        yield f"The provider left to the CPU: {first_three(nodes)}."


def _rows(benchmark: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    first = benchmark["settings"][number]
    control = {"ratio": "1", "ci": f"{interval(first['aa_ci95'])} (A/A)", "verdict": ""}
    yield {"name": VARIANTS["base"], "chosen": False, **_times(first["a"]), **control}
    for row in benchmark["variants"]:
        if row["settings"]:
            timed = row["settings"][number]
            name = VARIANTS[row["name"]]
            yield {"name": name, "chosen": row["chosen"], **_times(timed["b"]), **_said(timed)}
    for other in benchmark.get("against", ()):
        timed = other["settings"][number]
        yield {"name": other["file"], "chosen": False, **_times(timed["b"]), **_said(timed)}


def _times(side: Row) -> dict[str, str]:
    latency, rate = side["latency_ms"], side.get("images_per_s")
    return {
        **{key: ms(latency.get(key)) for key in ("p50", "p90", "p99")},
        "rate": f"{rate:,.0f}" if rate else "",
        "runs": f"{side['runs']:,}" if "runs" in side else "",
        "cv": f"{side['cv']:.0%}" if "cv" in side else "",
    }


def _said(timed: Row) -> dict[str, str]:
    return {**ratio_cells(timed), "verdict": timed["verdict"]}


def ratio_cells(row: Row) -> dict[str, str]:
    """A ratio, which is printed only where it was shown to differ from 1, and its interval."""
    return {
        "ratio": "–" if row["verdict"] == NO_DIFFERENCE else f"{row['ratio']:.2f}×",
        "ci": interval(row["ci95"]),
    }


def speedup_plot(settings: Sequence[Row]) -> str:
    """The delivered file at all settings, each over its own A/A control."""
    return plots.speedups(
        [(setting_name(s), s["ratio"], *s["ci95"], *s["aa_ci95"]) for s in settings]
    )


def distribution_plot(variants: Sequence[Row]) -> str:
    """The spread of calls of every file; empty for runs of older releases."""
    curves = {
        VARIANTS[row["name"]]: sorted((int(share), t) for share, t in row["quantiles_ms"].items())
        for row in variants
        if len(row.get("quantiles_ms", ())) > 1
    }
    return plots.distributions(curves) if curves else ""


def measured_sentence(benchmark: Mapping[str, Any], started: str) -> str:
    """How, when and on what it was timed.

    Args:
        started: when the stage began; empty where that is not known.
    """
    machine, first = benchmark["machine"], benchmark["settings"][0]
    load = machine.get("load")
    busy = f", load {load[0]:.1f} when it ended" if load else ""
    when = f" Measured {started}" if started else " Measured"
    rounds = ""
    if "rounds" in first:
        rounds = f" in {count_of(first['rounds'], 'round')} of {first['launches']} launches"
    return (
        f"Every file runs in a process of its own, and all take turns{rounds}; the interval is "
        "that of the ratio of times, next to each other. A/A is the original against another "
        "process of itself: what this machine's noise alone can show. Spread is the standard "
        f"deviation of single calls over their mean.{when} on "
        f"{machine.get('cpu') or 'an unnamed processor'}, "
        f"{count_of(machine['cores'], 'core')}{busy}."
    )


def roofline_sentence(benchmark: Mapping[str, Any]) -> str:
    """How close both files come to this machine's convolutions; empty where none was profiled."""
    why = benchmark.get("why")
    if not why:
        return ""
    a, b, peak = why["a"]["gmacs_per_s"], why["b"]["gmacs_per_s"], why["peak_gmacs_per_s"]
    if max(a, b) > peak:  # the peak was taken at another, busier moment
        return f"Original and delivered file run at {a:.1f} and {b:.1f} GMAC/s."
    return (
        f"Original and delivered file run at {a:.1f} and {b:.1f} of the {peak:.1f} GMAC/s "
        "that wide convolutions reach here."
    )

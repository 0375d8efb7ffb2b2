"""Both files before and after, their latency, further files, and the machine's limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.claims import change_sentence, change_text
from pipeline.words import count_of
from stages.report import plots
from stages.report.views.wording import ms, provider

_NO_DIFFERENCE = "no difference shown"


def headline(
    speedup: Mapping[str, Any],
    base: Mapping[str, Any],
    final: Mapping[str, Any],
    change: Mapping[str, Any] | None = None,
) -> str:
    """The verdict in one sentence; a speedup is only claimed where its interval excludes 1.

    Args:
        change: of accuracy (`pipeline.paired.paired_change`); None in runs of older releases.
    """
    ratio, (low, high) = speedup["ratio"], speedup["ci95"]
    interval = f"({low:.2f} to {high:.2f})"
    said = {
        "faster": f"{ratio:.2f} times as fast {interval}",
        "slower": f"Slower: {ratio:.2f} times the speed of the base {interval}",
        _NO_DIFFERENCE: f"No difference in speed shown: ratio {ratio:.2f} {interval}",
    }[speedup["verdict"]]
    threads = count_of(speedup["threads"], "thread")
    precision = {"int8": "INT8, "}.get(speedup["precision"], "")
    where = f"{precision}batch {speedup['batch']}, {threads}, {provider(speedup['provider'])}"
    points = 100 * (final["accuracy"] - base["accuracy"])
    return f"{said} at {where}; {change_sentence(change, points)}"


def before_after(
    base: Mapping[str, Any], final: Mapping[str, Any], paired: Mapping[str, Any] | None = None
) -> list[tuple[str, str, str, str]]:
    """Rows of the first table: what, before, after, change."""
    before, after = base["accuracy"], final["accuracy"]
    change = change_text(paired, 100 * (after - before))
    rows = [("test accuracy (onnxruntime)", f"{before:.2%}", f"{after:.2%}", change)]
    for key, name in (("macs", "MACs"), ("params", "parameters"), ("bytes", "ONNX file, bytes")):
        before, after = base[key], final[key]
        rows.append((name, f"{before:,}", f"{after:,}", f"{after / before - 1:+.1%}"))
    for key in ("p50", "p90"):
        before, after = base["latency_ms"][key], final["latency_ms"][key]
        change = f"{after / before - 1:+.1%}" if before and after else ""
        rows.append((f"{key} latency, ms", ms(before), ms(after), change))
    return rows


def setting_rows(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of the latency table."""
    return [
        {
            "provider": provider(s["provider"]),
            "batch": str(s["batch"]),
            "threads": str(s["threads"]),
            "a_p50": ms(s["a"]["latency_ms"]["p50"]) + " ms",
            "b_p50": ms(s["b"]["latency_ms"]["p50"]) + " ms",
            **ratio_cells(s),
            "aa": f"{s['aa_ci95'][0]:.2f} … {s['aa_ci95'][1]:.2f}",
            "verdict": s["verdict"],
        }
        for s in settings
    ]


def ratio_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A ratio, which is printed only where it was shown to differ from 1, and its interval."""
    return {
        "ratio": "–" if row["verdict"] == _NO_DIFFERENCE else f"{row['ratio']:.2f}×",
        "ci": f"{row['ci95'][0]:.2f} … {row['ci95'][1]:.2f}",
    }


def speedup_plot(settings: Sequence[Mapping[str, Any]]) -> str:
    """All settings, over the widest A/A control."""
    rows = []
    for s in settings:
        name = f"batch {s['batch']}, {count_of(s['threads'], 'thread')}"
        rows.append((name, s["ratio"], *s["ci95"]))
    # one band for all rows: the widest, so that none looks surer than it is
    control = max(max(abs(1 - edge) for edge in s["aa_ci95"]) for s in settings)
    return plots.speedups(rows, control)


def against_rows(benchmark: Mapping[str, Any]) -> list[dict[str, str]]:
    """Further files timed against the base: rows as of the latency table, with accuracy."""
    rows = []
    for other in benchmark.get("against", ()):
        accuracy = other["accuracy"]
        scored = "not scored" if accuracy is None else f"{accuracy:.2%}"
        for row in setting_rows(other["settings"]):
            rows.append({**row, "file": other["file"], "accuracy": scored})
    return rows


def roofline_sentence(benchmark: Mapping[str, Any]) -> str:
    """How close both files come to this machine's convolutions; empty where none was profiled."""
    why = benchmark.get("why")
    if not why:
        return ""
    a, b, peak = why["a"]["gmacs_per_s"], why["b"]["gmacs_per_s"], why["peak_gmacs_per_s"]
    if max(a, b) > peak:  # the peak was taken at another, busier moment
        return f"Base and final run at {a:.1f} and {b:.1f} GMAC/s."
    return (
        f"Base and final run at {a:.1f} and {b:.1f} of the {peak:.1f} GMAC/s "
        "that wide convolutions reach here."
    )

"""The first screen: the answer in a sentence, its numbers, and all files in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.claims import change_sentence, change_text
from pipeline.run.variants import FP32, PRECISIONS, VARIANTS
from pipeline.words import size
from stages.report import plots
from stages.report.views.wording import NO_DIFFERENCE, ms, provider, relative, setting_name

Side = Mapping[str, Any]


def headline(
    speedup: Mapping[str, Any], base: Side, final: Side, change: Mapping[str, Any] | None = None
) -> str:
    """The verdict in one sentence; a speedup is only claimed where its interval excludes 1.

    Args:
        change: of accuracy (`pipeline.paired.paired_change`); None in runs of older releases.
    """
    ratio, (low, high) = speedup["ratio"], speedup["ci95"]
    interval = f"({low:.2f} to {high:.2f})"
    said = {
        "faster": f"{ratio:.2f} times as fast {interval}",
        "slower": f"Slower: {ratio:.2f} times the speed of the original {interval}",
        NO_DIFFERENCE: f"No difference in speed shown: ratio {ratio:.2f} {interval}",
    }[speedup["verdict"]]
    points = 100 * (final["accuracy"] - base["accuracy"])
    return f"{said}; {change_sentence(change, points)}"


def conditions(speedup: Mapping[str, Any], images: int) -> str:
    """What the headline compares, and at what."""
    precision = PRECISIONS.get(speedup["precision"], "fp32")
    where = f"{provider(speedup['provider'])}, {setting_name(speedup)}"
    return (
        f"The delivered file, in {precision}, against the original in fp32, both in onnxruntime: "
        f"{where}; accuracy on {images:,} test images; 95 % intervals in brackets."
    )


def tiles(
    base: Side, final: Side, change: Mapping[str, Any] | None = None
) -> list[tuple[str, str, str, str]]:
    """What, after, before, and the change, most looked for first."""
    now, was = (f"{side['accuracy']:.2%}" for side in (final, base))
    points = change_text(change, 100 * (final["accuracy"] - base["accuracy"]))
    rows: list[tuple[str, str, str, str]] = []
    for key in ("p50", "p90", "p99"):
        after, before = (side["latency_ms"].get(key) for side in (final, base))
        if after and before:
            texts = f"{ms(after)} ms", f"{ms(before)} ms"
            rows.append((f"{key} latency", *texts, relative(before, after)))
    rows.insert(1, ("test accuracy", now, was, points))
    for key, name in (("bytes", "ONNX file"), ("macs", "MACs"), ("params", "parameters")):
        after, before = final[key], base[key]
        texts = (size(after), size(before)) if key == "bytes" else (short(after), short(before))
        rows.append((name, *texts, relative(before, after)))
    return rows


def short(number: float) -> str:
    """`16.7 M`, `812 k`, `93`."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:g}"


def answer_plot(benchmark: Mapping[str, Any]) -> str:
    """Every file by latency and accuracy at the first setting, with further files where scored."""
    rows = benchmark["variants"]
    spots = [_spot(row, rows[0]) for row in rows]
    for other in benchmark.get("against", ()):
        if other["accuracy"] is not None:
            first = other["settings"][0]
            row = {**other, **first, "latency_ms": first["b"]["latency_ms"], "name": other["file"]}
            spots.append(replace(_spot(row, rows[0]), further=True, pruned=False))
    return plots.accuracy_against_latency(spots)


def _spot(row: Side, base: Side) -> plots.Spot:
    """A file; its interval of accuracy is that of its change from the original's."""
    p50, percent = row["latency_ms"]["p50"], 100 * row["accuracy"]
    slow, fast = row["ci95"]
    change = row.get("accuracy_change")
    low, high = percent, percent
    if change:
        low, high = (100 * base["accuracy"] + end for end in change["ci95"])
    return plots.Spot(
        str(VARIANTS.get(row["name"], row["name"])),
        (p50 * min(1.0, row["ratio"] / fast), p50, p50 * max(1.0, row["ratio"] / slow)),
        (min(low, percent), percent, max(high, percent)),
        pruned=row["name"].startswith("final"),
        precision=row.get("precision", FP32),
        chosen=row.get("chosen", False),
    )

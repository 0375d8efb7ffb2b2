"""What `rlp bench` prints: the files, each verdict with its interval and its doubts, the causes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import console
from pipeline.claims import busy_clause
from pipeline.errors import Command
from pipeline.words import count_of

if TYPE_CHECKING:
    from stages.benchmark.equal_work import Checked


def show_checked(checked: Checked) -> None:
    """What the files are fed, once for all where it is the same; and what is refused."""
    for refusal in checked.refused:
        console.warn(f"not timed: {refusal.reason}")
    fed: dict[str, list[str]] = {}
    for call in checked.timed():
        inputs = ", ".join(f"{name} {tensor}" for name, tensor in call.inputs.items())
        fed.setdefault(inputs, []).append(Path(call.file).name)
    for inputs, names in fed.items():
        console.note(f"fed {inputs}: {', '.join(dict.fromkeys(names))}")


def show_files(rows: Sequence[dict[str, Any]]) -> None:
    """A line a file and setting; a percentile without enough samples stays blank."""

    def ms(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    columns = {
        "file": lambda row: Path(row["file"]).name,
        "batch": lambda row: row["batch"],
        "threads": lambda row: row["threads"],
        "p50 ms": lambda row: ms(row["latency_ms"]["p50"]),
        "p90 ms": lambda row: ms(row["latency_ms"]["p90"]),
        "p99 ms": lambda row: ms(row["latency_ms"]["p99"]),
        "calls": lambda row: row["runs"],
        "images/s": lambda row: f"{row['images_per_s']:,.0f}",
        "memory": lambda row: console.size(row["memory_bytes"]),
    }
    names = list(columns)
    shown = [[columns[name](row) for name in names] for row in rows]
    console.table(names, shown, right=names[1:])


def show_settings(rows: Sequence[dict[str, Any]], repeat: Command) -> None:
    """A line a comparison: verdict, ratio, interval, control, and why to doubt it."""
    for row in rows:
        a, b = (Path(row[side]["file"]).name for side in "ab")
        low, high = row["ci95"]
        console.say(
            f"{b} against {a}{_where(row)}: {row['verdict']}, {row['ratio']:.2f}× "
            f"({low:.2f} to {high:.2f}), control {row['aa_ci95'][0]:.2f} to "
            f"{row['aa_ci95'][1]:.2f}{busy_clause(row['doubts'], repeat)}"
        )
    for row in rows:
        if row["flushed"]:
            console.warn(denormal_sentence(row))


def _where(row: dict[str, Any]) -> str:
    return f" at batch {row['batch']}, {count_of(row['threads'], 'thread')}"


def show_why(why: dict[str, Any]) -> None:
    """Why a file is not faster, one line a cause, and how far both are from the machine's limit."""
    console.say(f"{why['file']}{_where(why['setting'])}: A {roofline(why)}")
    for cause in why["causes"] or ["no cause stands out in the profile"]:
        console.say(f"  {cause}")


def roofline(why: dict[str, Any]) -> str:
    """Achieved rates, and the measured peak where they are below it: a peak is taken at another
    moment, and of float32.
    """
    a, b = (why[side]["gmacs_per_s"] for side in ("a", "b"))
    rates, peak = f"{a:.1f} and B {b:.1f}", why["peak_gmacs_per_s"]
    return (
        f"{rates} of this machine's {peak:.1f} GMAC/s" if max(a, b) <= peak else f"{rates} GMAC/s"
    )


def denormal_sentence(row: dict[str, Any]) -> str:
    """Both timings of files with weights below the normal format: as they are, and flushed to
    zero.
    """
    counts = " and ".join(
        f"{row[side]['denormal_weights']:,} in {Path(row[side]['file']).name}"
        for side in "ab"
        if row[side]["denormal_weights"]
    )
    flushed = row["flushed"]
    times = ", ".join(
        f"{side.upper()} {row[side]['latency_ms']['p50']:.3f} ms as it is, "
        f"{flushed[f'{side}_p50_ms']:.3f} ms flushed"
        for side in "ab"
    )
    return (
        f"denormal weights: {counts}; batch {row['batch']}: {times}; flushed, the ratio is "
        f"{flushed['ratio']:.2f}× "
        f"({flushed['ci95'][0]:.2f} to {flushed['ci95'][1]:.2f}): {flushed['verdict']}"
    )

"""`rlp bench A.onnx B.onnx`: the benchmark protocol on any two files, no run needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command

if TYPE_CHECKING:
    from stages.benchmark import Comparison


def register(app: typer.Typer) -> None:
    command(app, "bench", keys=("settings", "why", "machine"))(bench)


_Files = Annotated[
    list[Path],
    typer.Argument(metavar="A.onnx B.onnx [...]", help="The base, then what is timed against it."),
]
_Batch = Annotated[
    list[int] | None,
    typer.Option("--batch", min=1, help="Images a call; repeatable. Default 1."),
]
_Threads = Annotated[
    list[int] | None,
    typer.Option(
        "--threads", min=0, help="Intra-op threads, 0 for all cores; repeatable. Default 1."
    ),
]
_Provider = Annotated[
    str, typer.Option("--provider", help="Execution provider: cpu, cuda, openvino, …")
]
_Static = Annotated[
    bool, typer.Option("--static", help="Fix the batch size in the graph before timing.")
]
_Shape = Annotated[
    str | None,
    typer.Option(
        "--shape", metavar="3x224x224", help="Input sizes, for files that leave them open."
    ),
]
_MinSeconds = Annotated[
    float,
    typer.Option("--min-seconds", min=0.05, help="Least measured seconds a file and setting."),
]
_MinRuns = Annotated[
    int, typer.Option("--min-runs", min=10, help="Least timed calls a file and setting.")
]
_AllowFallback = Annotated[
    bool, typer.Option("--allow-fallback", help="Go on when nodes fall back to the CPU.")
]


def bench(
    files: _Files,
    batch: _Batch = None,
    threads: _Threads = None,
    provider: _Provider = "cpu",
    static: _Static = False,
    shape: _Shape = None,
    min_seconds: _MinSeconds = 2.0,
    min_runs: _MinRuns = 100,
    allow_fallback: _AllowFallback = False,
) -> dict[str, Any]:
    """Time files against the first, interleaved: ratio = time of A / time of B, its interval, and
    an A/A control.

    Where a file is not faster, both are profiled, in runs of their own, and every cause found gets
    a sentence.
    """
    from pipeline.errors import Hint, UsageError
    from stages.benchmark import fingerprint, time_files
    from stages.benchmark.protocol import Protocol, Setting

    if len(files) < 2:
        raise UsageError(
            "bench needs at least two files", hint=Hint.command("bench", "base.onnx", "model.onnx")
        )
    sizes = _sizes(shape) if shape else None
    settings = [Setting(provider, b, t, static) for b in batch or [1] for t in threads or [1]]
    console.note(f"timing {', '.join(map(str, files[1:]))} against {files[0]}")
    with _watching("bench") as watcher:
        timed = time_files(
            files,
            settings,
            protocol=Protocol(min_seconds=min_seconds, min_runs=min_runs),
            input_shape=sizes,
            allow_fallback=allow_fallback,
            progress=watcher.progress,
        )
        found = [(file, timed.between(0, n)) for n, file in enumerate(files) if n]
        why = _why(files[0], found, sizes)
    rows = [item.to_dict() for _, compared in found for item in compared]
    show_settings(rows)
    for item in why:
        show_why(item)
    return {"settings": rows, "why": why, "machine": fingerprint()}


def _why(
    base: Path, found: list[tuple[Path, list[Comparison]]], sizes: list[int] | None
) -> list[dict[str, Any]]:
    """Of every file the causes at its first setting where it is not faster."""
    from stages.benchmark import explain

    why = []
    for other, compared in found:
        slow = next((item for item in compared if item.verdict != "faster"), None)
        if slow is not None:
            causes = explain(base, other, slow, input_shape=sizes).to_dict()
            why.append({"file": str(other), **causes})
    return why


def _sizes(shape: str) -> list[int]:
    from pipeline.errors import UsageError

    try:
        return [int(part) for part in shape.lower().split("x")]
    except ValueError:
        raise UsageError(
            f"--shape {shape}: expected sizes such as 3x224x224", hint="leave the batch out"
        ) from None


@contextmanager
def _watching(what: str) -> Iterator[console.RunWatcher]:
    watcher = console.RunWatcher()
    watcher.watch(what)
    try:
        yield watcher
    finally:
        watcher.close()


def show_why(why: dict[str, Any]) -> None:
    """Why a file is not faster, one line a cause, and how far both are from the machine's limit."""
    setting = why["setting"]
    where = f"batch {setting['batch']}, {setting['threads']} thread(s)"
    console.say(f"{why['file']} at {where}: A {roofline(why)}")
    for cause in why["causes"] or ["no cause stands out in the profile"]:
        console.say(f"  {cause}")


def roofline(why: dict[str, Any]) -> str:
    """Achieved rates against the measured peak."""
    a, b = (why[side]["gmacs_per_s"] for side in ("a", "b"))
    return f"{a:.1f} and B {b:.1f} of this machine's {why['peak_gmacs_per_s']:.1f} GMAC/s"


def show_settings(rows: list[dict[str, Any]]) -> None:
    """One line a setting; a percentile without enough samples stays blank."""

    def ms(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    shown = [
        (
            Path(row["b"]["file"]).name,
            row["provider"].removesuffix("ExecutionProvider"),
            row["batch"],
            row["threads"],
            ms(row["a"]["latency_ms"]["p50"]),
            ms(row["b"]["latency_ms"]["p50"]),
            ms(row["b"]["latency_ms"]["p90"]),
            ms(row["b"]["latency_ms"]["p99"]),
            row["b"]["runs"],
            f"{row['ratio']:.2f}×",
            f"{row['ci95'][0]:.2f} … {row['ci95'][1]:.2f}",
            f"{row['aa_ci95'][0]:.2f} … {row['aa_ci95'][1]:.2f}",
            row["verdict"],
        )
        for row in rows
    ]
    columns = (
        "file",
        "provider",
        "batch",
        "threads",
        "A p50 ms",
        "B p50 ms",
        "p90",
        "p99",
        "n",
        "ratio",
        "95 % CI",
        "A/A 95 % CI",
        "verdict",
    )
    console.table(columns, shown, right=columns[2:10])
    for row in rows:
        if row["flushed"]:
            console.warn(denormal_sentence(row))


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
        f"({flushed['ci95'][0]:.2f} … {flushed['ci95'][1]:.2f}): {flushed['verdict']}"
    )

"""`rlp bench A.onnx B.onnx`: the benchmark protocol on any files, no run needed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.cli import bench_options, bench_views
from pipeline.cli.common import command
from pipeline.errors import Command

if TYPE_CHECKING:
    from stages.benchmark import Comparison, Protocol, TimedFiles
    from stages.benchmark.equal_work import Checked


def register(app: typer.Typer) -> None:
    command(app, "bench", keys=("settings", "files", "refused", "why", "machine"))(bench)


_Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="A.onnx [B.onnx ...]", help="A file, then those that are timed against it."
    ),
]
_Batch = Annotated[
    list[Any] | None,
    typer.Option(
        "--batch",
        metavar="N[,N]",
        parser=bench_options.counts,
        help="Images a call; repeatable. Default 1.",
    ),
]
_Threads = Annotated[
    list[Any] | None,
    typer.Option(
        "--threads",
        metavar="N[,N]",
        parser=bench_options.counts,
        help="Intra-op threads, 0 for all cores; repeatable. Default 1.",
    ),
]
_Provider = Annotated[
    str, typer.Option("--provider", help="Execution provider: cpu, cuda, openvino, …")
]
_Static = Annotated[
    bool, typer.Option("--static", help="Fix the batch size in the graph before timing.")
]
_Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="[NAME=]SIZES",
        help="Sizes that files leave open, without the batch: 3x224x224 for every input, "
        "NAME=3x224x224 for one, NAME=224 for an open size by its name; repeatable.",
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
_AllowDifferent = Annotated[
    bool,
    typer.Option(
        "--allow-different", help="Time files whose inputs or outputs differ in size or type."
    ),
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
    allow_different: _AllowDifferent = False,
) -> dict[str, Any]:
    """Time files against the first, interleaved: ratio = time of A / time of B, its interval, and
    an A/A control; or one file alone.

    Every file is opened and called first: files that take or give something else are refused, and
    so is one that fixes another batch. Where a file is not faster, both are profiled, in runs of
    their own, and every cause found gets a sentence.
    """
    from stages.benchmark import fingerprint
    from stages.benchmark.equal_work import check_files
    from stages.benchmark.protocol import Protocol, Setting

    given = bench_options.sizes(shape or [])
    images_a_call = bench_options.numbers("--batch", batch, least=1)
    thread_counts = bench_options.numbers("--threads", threads, least=0)
    settings = [
        Setting(provider, images, count, static)
        for images in images_a_call
        for count in thread_counts
    ]
    checked = check_files(files, settings, given, allow_different=allow_different)
    bench_views.show_checked(checked)
    protocol = Protocol(min_seconds=min_seconds, min_runs=min_runs)
    timed = _timed(files, checked, protocol, given, allow_fallback)
    alone = [row for numbers, found in timed for row in _alone(numbers, found, checked)]
    compared = _against_the_first(files, timed)
    rows = [item.to_dict() for _, found in compared for item in found]
    why = _why(files[0], compared, given)
    flags = {
        "--static": static,
        "--allow-fallback": allow_fallback,
        "--allow-different": allow_different,
    }
    lists = {
        "--batch": _commas(images_a_call) if batch else None,
        "--threads": _commas(thread_counts) if threads else None,
        "--shape": shape,
    }
    bench_views.show_files(alone)
    bench_views.show_settings(rows, _longer(files, lists, provider, flags, min_seconds))
    for item in why:
        bench_views.show_why(item)
    return {
        "settings": rows,
        "files": alone,
        "refused": [refusal.to_dict() for refusal in checked.refused],
        "why": why,
        "machine": fingerprint(),
    }


def _commas(numbers: Sequence[int]) -> list[str]:
    return [",".join(map(str, numbers))]


def _longer(
    files: Sequence[Path],
    lists: Mapping[str, Sequence[str] | None],
    provider: str,
    flags: Mapping[str, bool],
    min_seconds: float,
) -> Command:
    """The command as it was typed, for four times as long: what a busy machine calls for.

    Args:
        lists: options that may be given several times, by name; None or empty: not given.
    """
    typed = [word for name, texts in lists.items() for word in bench_options.typed(name, texts)]
    given = bench_options.given({"--provider": (provider, "cpu")}, flags)
    seconds = ("--min-seconds", f"{4 * min_seconds:g}")
    return Command("bench", *map(str, files), *typed, *given, *seconds)


def _against_the_first(
    files: Sequence[Path], timed: Sequence[tuple[list[int], TimedFiles]]
) -> list[tuple[Path, list[Comparison]]]:
    """Every other file with its comparisons, one a setting, in the order in which they ran."""
    return [
        (files[number], found.between(0, at))
        for numbers, found in timed
        for at, number in enumerate(numbers)
        if at
    ]


def _timed(
    files: Sequence[Path],
    checked: Checked,
    protocol: Protocol,
    given: dict[str, list[int]],
    allow_fallback: bool,
) -> list[tuple[list[int], TimedFiles]]:
    """Numbers of files with their timings, by settings at which the same files are timed."""
    from stages.benchmark import time_files

    groups, found = checked.groups(), []
    parts = sum(len(indices) for _, indices in groups) * protocol.launches
    seconds = sum(checked.estimate(*group, protocol) for group in groups)
    console.note(f"takes about {console.duration(seconds)}")
    with _watching(parts) as progress:
        for numbers, indices in groups:
            timed = time_files(
                [files[number] for number in numbers],
                [checked.settings[index] for index in indices],
                protocol=protocol,
                input_shape=given,
                allow_fallback=allow_fallback,
                progress=lambda done, total: progress(),
            )
            found.append((numbers, timed))
    return found


@contextmanager
def _watching(parts: int) -> Iterator[Any]:
    """A bar; what is given to the caller counts one part of it."""
    watcher, begin, done = console.RunWatcher(), time.monotonic(), 0

    def progress() -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - begin) / done * (parts - done)
        watcher.progress(done, parts, eta=left)

    watcher.watch("bench")
    try:
        yield progress
    finally:
        watcher.close()


def _alone(numbers: Sequence[int], timed: TimedFiles, checked: Checked) -> list[dict[str, Any]]:
    """A row a file and setting: its times, what it was fed, what it gave, and its memory."""
    rows = []
    for at, number in enumerate(numbers):
        for setting, samples, variant in zip(
            timed.settings, timed.samples, timed.alone(at), strict=True
        ):
            call = checked.calls[number, checked.settings.index(setting)]
            where = {"batch": setting.batch, "threads": samples.threads}
            rows.append({**where, **variant.to_dict(), **call.to_dict()})
    return rows


def _why(
    base: Path, found: list[tuple[Path, list[Comparison]]], given: dict[str, list[int]]
) -> list[dict[str, Any]]:
    """Of every file the causes at its first setting where it is not faster."""
    from stages.benchmark import explain

    why: dict[Path, dict[str, Any]] = {}
    for other, compared in found:
        slow = next((item for item in compared if item.verdict != "faster"), None)
        if slow is not None and other not in why:
            causes = explain(base, other, slow, input_shape=given).to_dict()
            why[other] = {"file": str(other), **causes}
    return list(why.values())

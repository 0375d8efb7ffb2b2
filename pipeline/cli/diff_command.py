"""`rlp diff RUN_A RUN_B`: what two runs were asked, what they keep, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command
from pipeline.cli.completion import complete_run

NO_DIFFERENCE, _INTERVAL = "no difference shown", "  95 % interval"
_KEYS = ("a", "b", "settings", "made_with", "widths", "accuracy", "speed")
Row = Mapping[str, Any]
_Run = Annotated[
    Path, typer.Argument(metavar="RUN_A", help="A run folder.", autocompletion=complete_run)
]
_Other = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_B", help="The run to compare with it.", autocompletion=complete_run
    ),
]


def register(app: typer.Typer) -> None:
    command(app, "diff", keys=_KEYS)(diff)


def diff(run_a: _Run, run_b: _Other) -> dict[str, Any]:
    """Compare two runs: settings, widths, accuracy and latency with their intervals.

    Runs that are unfinished are compared as far as they are. Nothing is timed again: speeds are
    compared by way of the original, where that is the same file, timed in the same way.
    """
    from pipeline.cli.status import warn_of_stale
    from pipeline.run.comparing import compare, look_at

    for run in (run_a, run_b):
        warn_of_stale(run)
    a, b = look_at(run_a), look_at(run_b)
    found = compare(a, b)
    _show_settings(found)
    _show_widths(found["widths"])
    _show_answers(found)
    return {"a": str(run_a), "b": str(run_b), **found}


def _show_settings(found: Row) -> None:
    rows = [(row["key"], _text(row["a"]), _text(row["b"])) for row in found["settings"]]
    rows += [(row["key"], _text(row["a"]), _text(row["b"])) for row in found["made_with"]]
    if rows:
        console.table(("setting", "A", "B"), rows)
    else:
        console.say("the same settings, versions and machine")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _show_widths(rows: list[dict[str, Any]]) -> None:
    differing = [row for row in rows if row["a"] != row["b"]]
    console.say()
    if not differing:
        console.say(f"the same widths in all {len(rows)} groups" if rows else "no plans to compare")
        return
    shown = [(row["group"], row["of"], row["a"], row["b"]) for row in differing]
    title = f"units kept in {len(differing)} of {len(rows)} groups; the others are the same"
    console.table(("group", "of", "A", "B"), shown, title=title, right=("of", "A", "B"))


def _show_answers(found: Row) -> None:
    accuracy, speed = found["accuracy"], found["speed"]
    if accuracy is None or speed is None:
        console.say("not both runs have come to their end: no answers to compare")
        return
    console.say()
    rows = [
        (
            "test accuracy",
            *_sides(accuracy, lambda side: f"{side['value']:.2%}"),
            _change(accuracy),
        ),
        (_INTERVAL, *_sides(accuracy, _share), _points(accuracy["ci95"])),
        ("MACs", *_sides(accuracy, lambda side: f"{side['macs']:,}"), ""),
        ("file", *_sides(accuracy, lambda side: console.size(side["bytes"])), ""),
        ("precision", *_sides(speed, lambda side: side["precision"]), ""),
        ("speed, original 1", *_sides(speed, lambda side: f"{side['ratio']:.2f}×"), _faster(speed)),
        (_INTERVAL, *_sides(speed, lambda side: _range(side["ci95"])), _range(speed["ci95"])),
    ]
    console.table(("", "A", "B", "B against A"), rows, right=("A", "B"))
    if speed["why_not"]:
        console.note(f"speeds are not compared: {speed['why_not']}")


def _sides(found: Row, show: Callable[[Row], str]) -> tuple[str, str]:
    return show(found["a"]), show(found["b"])


def _share(side: Row) -> str:
    low, high = side["ci95"]
    return f"{low:.2%} to {high:.2%}"


def _points(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f} points"


def _range(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _change(accuracy: Row) -> str:
    if accuracy["why_not"]:
        return str(accuracy["why_not"])
    return f"{accuracy['points']:+.2f} points" if accuracy["shown"] else NO_DIFFERENCE


def _faster(speed: Row) -> str:
    if speed["ci95"] is None:
        return "see below"
    low, high = speed["ci95"]
    return NO_DIFFERENCE if low <= 1 <= high else f"{speed['ratio']:.2f}×"

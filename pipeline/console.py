"""The only module that writes to the terminal: human, json or quiet.

Data goes to stdout, progress and hints to stderr. No markup is interpreted in text that comes from
users, and what would steer a terminal is shown, not obeyed: a class may be called `\\x1b[2J`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable, RenderHook
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import ControlType, Segment, Segments
from rich.table import Column, Table

from pipeline.errors import RlpError
from pipeline.table_layout import lay_out
from pipeline.words import size as size  # callers have it from here, with what prints it

if TYPE_CHECKING:
    from pipeline.run.step import Step

Mode = Literal["human", "json", "quiet"]
LARGEST_CELL = 10_000  # characters of a table's cell: to fold millions takes a minute
PLAIN_EVERY_S = 30.0  # enough for a log to show life, and too little to fill it

# C0 but tab and newline, DEL, C1; and what turns the direction of text around
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

mode: Mode = "human"
verbose = False
_live: Progress | None = None  # what is printed meanwhile goes above it


def setup(new_mode: Mode, is_verbose: bool = False) -> None:
    """Choose what the process prints from here on."""
    global mode, verbose
    mode, verbose = new_mode, is_verbose


class _Console(Console):
    """A reader that goes away (`| head`) changes neither what a command does nor its exit code."""

    def on_broken_pipe(self) -> None:  # Rich's own exits with 1
        _to_nowhere(self.file)


def _to_nowhere(stream: IO[str]) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())  # once closed, it would fail again in Python's flush at exit
    os.close(null)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere(sys.stdout)


def _console(stderr: bool = False) -> Console:
    if stderr and _live is not None:
        return _live.console
    # Rich would fold at 80 columns what a program reads by lines
    piped = not (sys.stderr if stderr else sys.stdout).isatty()
    columns = os.environ.get("COLUMNS", "")
    width = (
        max(40, int(columns)) if columns.isdecimal() and int(columns) else (120 if piped else None)
    )
    return _Console(
        # A path may hold `[/a]`, on which Rich's markup raises, or `:x:`, which it would draw.
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        width=width,
        soft_wrap=piped,
    )


def _shown(text: Any, *, newlines: bool = True) -> str:
    """Text of anybody's, harmless to a terminal.

    Args:
        newlines: kept as they are; else shown as well, where a line more would be a lie.
    """
    harmless = _STEERING.sub(lambda found: ascii(found[0])[1:-1], str(text))
    return harmless if newlines else harmless.replace("\n", "\\n")


def say(text: str = "") -> None:
    """A line of data on stdout; nothing in json or quiet mode."""
    if mode == "human":
        _console().print(_shown(text))


def note(text: str) -> None:
    """A line about progress on stderr; nothing in quiet mode."""
    if mode != "quiet":
        _console(stderr=True).print(_shown(text), style="dim")


def warn(text: str) -> None:
    """A warning on stderr, in every mode."""
    _console(stderr=True).print(f"warning: {_shown(text)}", style="yellow")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    right: Sequence[str] = (),
) -> None:
    """A table on stdout; columns named in `right` are aligned to the right, and those without any
    value are left out, as is a table of nothing else. Nothing in json or quiet mode.
    """
    if mode != "human":
        return
    filled = [
        at
        for at in range(len(columns))
        if not rows or any(row[at] not in ("", None) for row in rows)
    ]
    if not filled:
        return
    names = [_shown(columns[at]) for at in filled]
    cells = [[_cell(row[at]) for at in filled] for row in rows]
    rigid = [_shown(name) for name in right]
    out = _console()
    room = max(out.width, *map(cell_len, names)) if names else out.width
    layout = lay_out(names, cells, room, rigid, cell_len)
    if title:
        out.print(_shown(title), style="bold")
    if layout.common:
        out.print("in every row: " + ", ".join(f"{name} {cell}" for name, cell in layout.common))
    if not layout.widths and rows:
        left = [[row[at] for at in layout.columns] for row in cells]
        _below_each_other(out, [names[at] for at in layout.columns], left)
        return
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for at, width in zip(layout.columns, layout.widths, strict=True):
        side: Literal["left", "right"] = "right" if names[at] in rigid else "left"
        # Rich's default cuts a long path short
        drawn.add_column(names[at], justify=side, overflow="fold", width=width)
    for row in cells:
        drawn.add_row(*(row[at] for at in layout.columns))
    out.print(drawn)


def _below_each_other(out: Console, names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """A table that is too wide: each row's first cell, and what the others are called."""
    for first, *others in cells:
        out.print(first, style="bold")
        for name, cell in zip(names[1:], others, strict=True):
            if cell:
                out.print(f"  {name} {cell}")


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    if len(text) > LARGEST_CELL:
        text = f"{text[:LARGEST_CELL]}… ({len(text):,} characters; --json has them all)"
    return _shown(text, newlines=False)


def document(doc: Mapping[str, Any]) -> None:
    """The one JSON document of a command, on stdout; only in json mode."""
    if mode == "json":
        _write(json.dumps(doc, indent=2, allow_nan=False) + "\n")


def raw(text: str) -> None:
    """Text that is itself the result (a schema, a YAML file), on stdout in every mode but json."""
    if mode != "json":
        shown = _shown(text)
        _write(shown if shown.endswith("\n") else shown + "\n")


def failure(error: RlpError) -> None:
    """One `error:` line, a line for each further detail, one `hint:` line, on stderr."""
    console = _console(stderr=True)
    # one line for grep, whatever the width
    console.print(f"error: {_one_line(error.message)}", style="red", soft_wrap=True)
    for detail in error.details:
        console.print(f"error: {_one_line(detail)}", style="red", soft_wrap=True)
    if error.hint:
        console.print(f"hint: {_one_line(error.hint)}", soft_wrap=True)


def _one_line(text: str) -> str:
    return _shown(" ".join(text.split()))


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _codes(text: str) -> Segments:
    return Segments([Segment(text, None, [(ControlType.CLEAR,)])])  # any control: it has no width


# of the line below on, for some terminals keep in their history what is erased from the first on
_ERASE_BELOW = _codes("\x1b7\x1b[B\x1b[J\x1b8")
# cut, not folded, where the terminal has become narrower and has not told us yet
_CUT, _CUT_NO_MORE = _codes("\x1b[?7l"), _codes("\x1b[?7h\r")


class _Bar(Progress, RenderHook):
    """A live bar, one line as wide as the terminal, that leaves the cursor at its beginning.

    A terminal that is made narrower folds the line, and Rich, which goes up by the lines it wrote,
    would leave the upper ones for good. The cursor stays with the character that it is on: from the
    beginning of the line, all that it was folded to lies below and can be erased.
    """

    def start(self) -> None:
        super().start()
        self.console.push_render_hook(self)  # behind that of Rich, which adds the bar
        self.refresh()

    def stop(self) -> None:
        self.console.pop_render_hook()
        super().stop()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        if not self.console.is_interactive:  # Rich draws no bar there either
            return renderables
        *above, bar = renderables
        return [_ERASE_BELOW, *above, _CUT, bar, _CUT_NO_MORE]


_CUT_SHORT = Column(ratio=3, no_wrap=True, overflow="ellipsis")


class RunWatcher:
    """Shows a run: one line a stage, a live bar below it on a terminal, a plain line every 30 s
    elsewhere.
    """

    def __init__(self) -> None:
        self._task: TaskID | None = None
        self._stage = ""
        self._last_plain = time.monotonic()

    def begin(self, step: Step, index: int, total: int) -> None:
        self._stage = step.stage.name
        number = f"{index + 1:>{len(str(total))}}/{total}"
        if step.action == "reuse":
            note(f"[{number}] {self._stage:<11} reused, fresh")
            return
        if step.action == "run":
            note(f"[{number}] {self._stage:<11} {step.stage.stage.title} ({step.reason})")
            self.watch(self._stage)

    def watch(self, what: str) -> None:
        """Show progress of something that is not a stage, under this name."""
        self._stage, self._last_plain = what, time.monotonic()
        global _live
        if mode == "human" and sys.stderr.isatty():
            self.close()
            _live = _Bar(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),  # on here unless told otherwise
                BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=24, min_width=8)),
                TextColumn("{task.fields[count]}", markup=False),
                TextColumn("{task.fields[left]}", markup=False),
                TextColumn("{task.fields[text]}", markup=False, table_column=_CUT_SHORT),
                TimeElapsedColumn(),
                console=_console(stderr=True),
                transient=True,
                expand=True,
            )
            self._task = _live.add_task(_shown(what), total=None, text="", count="", left="")
            _live.start()

    def end(self, step: Step, summary: Mapping[str, Any], seconds: float) -> None:
        self.close()
        shown = ", ".join(
            f"{_label(key)} {_value(key, value)}" for key, value in summary.items() if _plain(value)
        )
        note(
            f"      {step.stage.name:<11} done in {duration(seconds)}"
            + (f": {shown}" if shown else "")
        )

    def close(self) -> None:
        """Take the live bar away; also after an error."""
        global _live
        if _live is not None and self._task is not None:
            _live.stop()
            _live = self._task = None

    def progress(self, done: int, total: int, **fields: Any) -> None:
        count, left, text = f"{done:,}/{total:,}", _left(fields), _progress_text(fields)
        if _live is not None and self._task is not None:
            shown: dict[str, Any] = {"count": count, "left": left, "text": _shown(text)}
            _live.update(self._task, completed=done, total=total, **shown)
        elif time.monotonic() - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            note(f"      {self._stage:<11} {' · '.join(filter(None, (count, left, text)))}")

    def note(self, text: str) -> None:
        note(f"      {text}")

    def warn(self, text: str) -> None:
        warn(text)


def _left(fields: Mapping[str, Any]) -> str:
    """`eta 3 min 05 s`; empty where nobody knows."""
    found = next((fields[key] for key in ("eta_s", "eta") if fields.get(key) is not None), None)
    return "" if found is None else f"eta {_value('eta', found)}"


def _progress_text(fields: Mapping[str, Any]) -> str:
    """What else is said of the progress, the most telling first."""
    what = [str(fields["what"])] if fields.get("what") else []
    rest = [
        f"{value:,.0f} images/s" if key == "images_per_s" else f"{_label(key)} {_value(key, value)}"
        for key, value in fields.items()
        if key not in ("what", "eta", "eta_s") and value is not None
    ]
    return " · ".join(what + rest)


def _label(key: str) -> str:
    return "took" if key == "seconds" else key.removesuffix("_fraction").replace("_", " ")


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


# of images; what stages call accuracy by the network that has it, too
_SHARES = ("acc", "agreement", "top1_agreement", "best", "teacher", "cut", "batchnorm",
           "original", "reconstructed")  # fmt: skip


def _value(key: str, value: Any) -> str:
    if key.endswith(("eta_s", "seconds")) or key == "eta":
        return duration(float(value)) if isinstance(value, (int, float)) else str(value)
    if key == "bytes" and isinstance(value, int):
        return size(value)
    if isinstance(value, float):
        if ("accuracy" in key or key in _SHARES) and 0 <= value <= 1:
            return f"{value:.2%}"
        return f"{value:.1%}" if key.endswith("_fraction") else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)

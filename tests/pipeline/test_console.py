"""Formats for people; nothing here depends on a terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import console
from pipeline.errors import ArtifactError


@pytest.fixture(autouse=True)
def _human() -> Any:
    console.setup("human")
    yield
    console.setup("human")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (185, "3 min 05 s"), (3600, "60 min 00 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (812, "812 B"), (3_400, "3.4 kB"), (5e9, "5.0 GB")]
)
def test_size(n: float, text: str) -> None:
    assert console.size(n) == text


def test_failure_is_one_line_an_error_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    console.failure(ArtifactError("a\nb [/c] " + "x" * 500, hint="d\n  e", details=["f\rg"]))
    assert capsys.readouterr().err.splitlines() == [
        "error: a b [/c] " + "x" * 500,
        "error: f g",
        "hint: d e",
    ]


def test_no_colour_codes_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn("careful")
    console.note("by the way")
    console.table(("a", "b"), [("[red]1[/red]", None)])
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "[red]1[/red]" in captured.out


def test_json_mode_prints_the_document_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console.setup("json")
    console.say("no")
    console.table(("a",), [("no",)])
    console.raw("no")
    console.document({"name": "ü\udcff"})
    assert capsys.readouterr().out == '{\n  "name": "\\u00fc\\udcff"\n}\n'


def test_document_refuses_nan() -> None:
    console.setup("json")
    with pytest.raises(ValueError, match="JSON compliant"):
        console.document({"loss": float("nan")})


def test_quiet_mode_still_warns(capsys: pytest.CaptureFixture[str]) -> None:
    console.setup("quiet")
    console.say("no")
    console.note("no")
    console.warn("yes")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "warning: yes\n")


def test_plain_progress_is_one_line_every_thirty_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    watcher = console.RunWatcher()
    placed = SimpleNamespace(name="distill", stage=SimpleNamespace(title="recovering"))
    step = SimpleNamespace(stage=placed, action="run", reason="never run")
    watcher.begin(step, 4, 8)  # type: ignore[arg-type]
    for second in range(1, 91):
        clock.now = 1000.0 + second
        watcher.progress(second, 90, loss=0.123456, accuracy=0.5)
    made = {"accuracy": 0.5, "path": None, "teacher": 1.0, "macs_fraction": 0.592, "bytes": 46_597}
    watcher.end(step, {**made, "score_cut": -0.25, "seconds": 3.0}, 90)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[5/8] distill     recovering (never run)"
    assert [line.split()[1] for line in lines[1:-1]] == ["30/90", "60/90", "90/90"]
    assert "loss 0.1235" in lines[1]
    numbers = "accuracy 50.00%, teacher 100.00%, macs 59.2%, bytes 46.6 kB, score cut -0.25, took"
    assert numbers in lines[-1]


EVIL = "cat\x1b[2J\x1b]0;title\x07\x9b31m\u202egod\x7f"


def test_nothing_that_is_printed_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = console.RunWatcher()
    for show in (console.say, console.note, console.warn, console.raw, watcher.note):
        show(EVIL)
    console.table((EVIL,), [(EVIL + "\nerror: made up",)], title=EVIL)
    console.failure(ArtifactError(EVIL, hint=EVIL, details=[EVIL]))
    printed = "".join(capsys.readouterr())
    assert printed.count(r"cat\x1b[2J\x1b]0;title\x07\x9b31m\u202egod\x7f") == 11
    assert not set(printed) & set("\x1b\x07\x9b\u202e\x7f")
    assert r"\nerror: made up" in printed


def test_a_huge_cell_is_cut_short_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("a",), [("x" * 3_000_000,)])
    printed = capsys.readouterr().out
    assert printed.count("x") == console.LARGEST_CELL
    assert "3,000,000" in printed


def test_a_table_without_any_value_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(("a", "b"), [("", None), ("", "")], title="nothing")
    assert capsys.readouterr().out == ""
    console.table(("a", "b"), [], title="no rows")
    assert capsys.readouterr().out.split() == ["no", "rows", "a", "b"]


def test_messages_go_above_the_live_bar_which_keeps_count_and_estimate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.setup("human")
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: True)
    for key, value in {"COLUMNS": "60", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(key, value)
    watcher = console.RunWatcher()
    watcher.watch("search")
    try:
        live = console._live
        assert live is not None
        watcher.progress(62, 336, what="widths measured for the loss table", eta_s=65.0, best=0.5)
        assert console._console(stderr=True) is live.console, "notes and warnings go through it"
        with live.console.capture() as shown:
            live.console.print(live.get_renderable())
    finally:
        watcher.close()
    found = next(line for line in shown.get().splitlines() if "62/336" in line)
    line = found.rpartition("\x1b[2K")[2]  # behind what clears the line before
    assert len(line) <= 60
    for part in ("search", "62/336", "eta 1 min 05 s", "╸", "…"):
        assert part in line
    assert console._live is None

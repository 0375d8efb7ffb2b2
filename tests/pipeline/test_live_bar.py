"""The live bar on a terminal whose width changes: nothing of it is left behind."""

from __future__ import annotations

import os
import re

import pytest

from pipeline import console


class Terminal:
    """Rows without end, folded anew when the width changes, as most terminals do; with the codes
    that the bar uses. `reported` is the width that a program gets to know.
    """

    def __init__(self, width: int) -> None:
        self.width, self.reported, self.wraps = width, width, True
        self.rows: list[tuple[str, bool]] = [("", False)]  # text, and whether it goes on below
        self.at = self.saved = (0, 0)

    def shown(self) -> list[str]:
        return [text.rstrip() for text, _ in self.rows if text.strip()]

    def feed(self, text: str) -> None:
        for code in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\x1b[78]|[^\x1b]", text):
            if len(code) == 1:
                self._put(code)
            else:
                self._obey(code[1:])

    def _put(self, character: str) -> None:
        row, column = self.at
        if character == "\r":
            self._go(row, 0)
        elif character == "\n":  # the system puts the return before it
            self._go(row + 1, 0)
        elif column == self.width and self.wraps:
            self.rows[row] = self.rows[row][0], True
            self._go(row + 1, 0)
            self._put(character)
        else:
            column = min(column, self.width - 1)
            text, goes_on = self.rows[row]
            self.rows[row] = (
                text[:column].ljust(column) + character + text[column + 1 :],
                goes_on,
            )
            self._go(row, column + 1)

    def _go(self, row: int, column: int) -> None:
        self.rows += [("", False)] * (row + 1 - len(self.rows))
        self.at = row, column

    def _obey(self, code: str) -> None:
        row, column = self.at
        if code in ("[A", "[1A", "[B"):
            self._go(row + (1 if code == "[B" else -1), column)
        elif code == "[2K":
            self.rows[row] = "", False
        elif code == "[J":
            self.rows[row:] = [(self.rows[row][0][:column], False)]
        elif code in ("[?7l", "[?7h"):
            self.wraps = code == "[?7h"
        elif code == "7":
            self.saved = self.at
        elif code == "8":
            self._go(*self.saved)
        else:
            assert code[-1] == "m" or code.startswith("[?25"), code

    def resize(self, width: int) -> None:
        """Fold anew; the cursor stays with its character."""
        rows, self.rows, self.width = self.rows, [], width
        text, start = "", 0
        for number, (part, goes_on) in enumerate(rows):
            if number == self.at[0]:
                start, place = len(self.rows), len(text) + self.at[1]
                cursor = start + place // width, place % width
            text += part
            if not goes_on:
                parts = [text[i : i + width] for i in range(0, len(text), width)] or [""]
                self.rows += [*((part, True) for part in parts[:-1]), (parts[-1], False)]
                text = ""
        self._go(*cursor)


def test_a_terminal_that_folds_the_bar_keeps_nothing_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal(100)
    console.setup("human")
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(
        os, "get_terminal_size", lambda fd: os.terminal_size((terminal.reported, 24))
    )
    monkeypatch.setattr("rich.live._RefreshThread.run", lambda thread: None)  # drawn when we say
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    watcher = console.RunWatcher()
    watcher.note("above")
    watcher.watch("search")
    try:
        assert console._live is not None
        watcher.progress(62, 336, what="widths measured for the loss table", eta_s=65.0, best=0.5)
        # the last three: the terminal has changed twice before it says so
        widths = (100, 100), (75, 75), (60, 60), (90, 90), (70, 90), (60, 90), (60, 60)
        for width, terminal.reported in widths:
            terminal.resize(width)
            console._live.refresh()
            terminal.feed(capsys.readouterr().err)
            above, bar = terminal.shown()
            assert above == "      above"
            assert "search" in bar
    finally:
        watcher.close()
    terminal.feed(capsys.readouterr().err)
    assert terminal.shown() == ["      above"]
    assert terminal.wraps

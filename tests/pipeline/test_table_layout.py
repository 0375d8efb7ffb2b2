"""Tables of any width: no word broken, numbers whole, what every row says said once."""

from __future__ import annotations

import pytest

from pipeline import console
from pipeline.table_layout import lay_out

NAMES = ("run", "state", "speed", "95 % CI", "why")
ROWS = [
    ("artifacts/quickstart", "done", "2.74×", "2.57 to 2.94", "the first one"),
    ("artifacts/other", "done", "10.01×", "9.00 to 11.20", "a longer text about the second run"),
]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    console.setup("human")
    return monkeypatch


def _printed(width: int, wide: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    wide.setenv("COLUMNS", str(width))
    console.table(NAMES, ROWS, right=NAMES[2:4], title="a title")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_every_word_of_a_table_is_whole(
    width: int, wide: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _printed(width, wide, capsys)
    assert all(len(line.rstrip()) <= width for line in lines)
    said = {word.strip(",") for line in lines for word in line.split()}
    assert {word for row in ROWS for cell in row for word in cell.split()} <= said


def test_numbers_fold_last_and_common_cells_are_said_once() -> None:
    assert lay_out(NAMES, ROWS, 200).common == []
    narrow = lay_out(NAMES, ROWS, 70, NAMES[2:4])
    assert narrow.common == [("state", "done")]
    widths = dict(zip(narrow.columns, narrow.widths, strict=True))
    assert (widths[2], widths[3]) == (6, 13), "as wide as their widest cell"
    assert widths[4] < len(ROWS[1][4])
    assert sum(narrow.widths) + 2 * (len(narrow.widths) - 1) <= 70
    assert lay_out(NAMES, ROWS, 20, NAMES[2:4]).widths == []


def test_no_number_is_parted_from_its_unit(
    wide: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("original, INT8 alone", "817.6 kB", "0.366 ms", "1.89×", "1.83 to 1.95")]
    wide.setenv("COLUMNS", "48")
    console.table(("variant", "file", "p50", "speed", "95 % CI"), rows)
    printed = capsys.readouterr().out
    assert "817.6 kB" in printed
    assert "0.366 ms" in printed


def test_one_row_keeps_all_its_columns() -> None:
    assert lay_out(NAMES, ROWS[:1], 60).common == []


def test_a_table_without_room_is_written_below_each_other(
    wide: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide.setenv("COLUMNS", "40")
    long = "x" * 30
    console.table(("a", "b", "c"), [(long, long, "1"), ("second", "y", "2")])
    lines = capsys.readouterr().out.split("\n")
    assert lines[:3] == [long, f"  b {long}", "  c 1"]

"""A bug of ours: exit 70, one line, and a traceback that was saved."""

from __future__ import annotations

from pathlib import Path

import fake_run
import pytest
from failures import assert_failure

pytestmark = pytest.mark.usefixtures("fakes")


def test_broken_pipe_to_a_worker_is_not_taken_for_a_reader_that_left(
    rlp: fake_run.Rlp, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, ctx: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("tempfile.tempdir", str(here))
    monkeypatch.setattr(type(fake_run.STAGES[0]), "run", fail)
    (here / "fake.yaml").write_text("seed: 0\n")
    assert_failure(rlp("pipeline", "run", "fake.yaml", "--json"), 70)


def test_bug_is_one_line_and_a_saved_traceback(
    rlp: fake_run.Rlp, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, ctx: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr("tempfile.tempdir", str(here))
    monkeypatch.setattr(type(fake_run.STAGES[0]), "run", fail)
    (here / "fake.yaml").write_text("seed: 0\n")
    result = rlp("pipeline", "run", "fake.yaml", "--json")
    assert_failure(result, 70)
    assert result.lines("error") == ["error: a bug in rlp: ZeroDivisionError: oh no"]
    saved = Path(result.lines("hint")[0].partition("is in ")[2])
    assert "Traceback" in saved.read_text()
    monkeypatch.setenv("RLP_DEBUG", "1")
    assert "Traceback" in rlp("pipeline", "run", "fake.yaml").err

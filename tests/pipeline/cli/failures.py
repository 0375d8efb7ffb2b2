"""What every failing command owes its caller."""

from __future__ import annotations

import fake_run

ENVELOPE = {"ok", "exit_code", "error"}


def assert_failure(result: fake_run.Result, code: int) -> None:
    assert result.code == code
    document = result.json()
    assert document["ok"] is False
    assert document["exit_code"] == code
    assert document["error"]["message"]
    assert len(result.lines("error")) == 1 + len(document["error"]["details"])
    assert len(result.lines("hint")) == 1
    assert "Traceback" not in result.err

"""The machine behind a timing."""

from __future__ import annotations

import importlib
import json

import pytest

module = importlib.import_module("stages.benchmark.fingerprint")


def test_the_id_ignores_what_changes_by_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    before = module.fingerprint()
    assert json.dumps(before, allow_nan=False)
    assert before["versions"]["onnxruntime"]
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 99.0, 99.0))
    after = module.fingerprint()
    assert after["load"] == [99.0, 99.0, 99.0]
    assert after["id"] == before["id"]
    monkeypatch.setattr(module, "package_versions", lambda packages: {"numpy": "0.0"})
    assert module.fingerprint()["id"] != before["id"]


def test_pins_to_the_last_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "allowed_cores", lambda: [3, 5, 8, 9])
    assert module.cores(1) == [9]
    assert module.cores(2) == [8, 9]
    assert module.cores(9) == [3, 5, 8, 9]

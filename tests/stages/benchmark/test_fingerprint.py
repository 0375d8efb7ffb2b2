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
    monkeypatch.setattr(module, "_version", lambda package: "0.0")
    assert module.fingerprint()["id"] != before["id"]


@pytest.mark.parametrize(
    ("files", "quota", "threads"),
    [
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, None, 4),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5, 2),
        ({"/sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5, 1),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
            4,
        ),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            3.0,
            3,
        ),
        ({}, None, 4),
    ],
)
def test_all_cores_means_those_that_the_quota_pays_for(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(module, "_read", files.get)
    monkeypatch.setattr(module, "allowed_cores", lambda: [3, 5, 8, 9])
    assert module.cpu_quota() == quota
    assert module.resolve_threads(0) == threads
    assert module.resolve_threads(7) == 7


def test_pins_to_the_last_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "allowed_cores", lambda: [3, 5, 8, 9])
    assert module.cores(1) == [9]
    assert module.cores(2) == [8, 9]
    assert module.cores(9) == [3, 5, 8, 9]

"""The timing worker that a search keeps: it times, it compares, it outlives its children."""

from __future__ import annotations

import os
import signal

import pytest

from pipeline.errors import ArtifactError
from stages.benchmark import LatencyWorker
from stages.benchmark.probes import conv_chain

SMALL, LARGE = conv_chain(16, 8, repeat=2), conv_chain(128, 16, repeat=2)


def test_times_and_compares() -> None:
    with LatencyWorker(LARGE) as worker:
        assert 0 < worker.time(SMALL, min_time=0.01) < worker.time(LARGE, min_time=0.01)
        found = worker.relative(SMALL, min_time=0.02)
        assert found.fraction < 0.5
        assert 0 < found.seconds < found.reference_seconds
        assert worker.relative(SMALL, min_time=0.01, batch=2).fraction < 0.5


def test_a_busy_machine_flatters_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disturbed:
        def __init__(self, floor: int, usual: int) -> None:
            self.calls = [floor] * 4 + [usual] * 36

        def slot(self, seconds: float, least: int) -> list[int]:
            return self.calls

    sides = {"reference": Disturbed(100_000, 300_000), "candidate": Disturbed(50_000, 60_000)}
    monkeypatch.setattr(LatencyWorker, "_opened", lambda self, side, *_: sides[side])
    found = LatencyWorker(LARGE).relative(SMALL)
    assert found.fraction == pytest.approx(0.5)
    assert (found.seconds, found.reference_seconds) == pytest.approx((60e-6, 300e-6))


def test_outlives_a_broken_candidate_and_a_dead_child() -> None:
    with LatencyWorker() as worker:
        with pytest.raises(ArtifactError):
            worker.time(b"no graph")
        assert worker.time(SMALL, min_time=0.001) > 0
        (child,) = worker._workers.values()
        os.kill(child.pid, signal.SIGKILL)
        child._process.wait()
        assert worker.time(SMALL, min_time=0.001) > 0
        assert next(iter(worker._workers.values())).pid != child.pid
    assert not worker._workers


def test_no_reference_no_comparison() -> None:
    with LatencyWorker() as worker, pytest.raises(ValueError, match="without a reference"):
        worker.relative(SMALL)

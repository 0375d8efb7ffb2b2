"""The timing worker that a search keeps: it times, it compares, it outlives its children."""

from __future__ import annotations

import os
import signal

import pytest

from pipeline.errors import ArtifactError
from stages.benchmark import LatencyWorker
from stages.benchmark.latency import _alternating
from stages.benchmark.probes import conv_chain

SMALL, LARGE = conv_chain(16, 8, repeat=2), conv_chain(128, 16, repeat=2)


def test_times_and_compares() -> None:
    with LatencyWorker(LARGE) as worker:
        assert 0 < worker.time(SMALL, min_time=0.01) < worker.time(LARGE, min_time=0.01)
        found = worker.relative(SMALL, min_time=0.02)
        assert found.fraction < 0.5
        assert 0 < found.seconds < found.reference_seconds
        assert worker.relative(SMALL, min_time=0.01, batch=2).fraction < 0.5


def test_a_changing_machine_flatters_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its speed differs from round to round, and other work falls into slots of both sides."""
    asked: list[str] = []

    class Changing:
        def __init__(self, side: str, usual: int, disturbed: tuple[int, ...]) -> None:
            self.side, self.usual, self.disturbed = side, usual, disturbed

        def slot(self, seconds: float, least: int) -> list[int]:
            turn = len(asked) // 4
            asked.append(self.side)
            slower = 9 if turn in self.disturbed else 1
            usual = self.usual * (1 + turn % 3) * slower
            # most calls of a round wait for other work, and of the larger network for longer
            return [usual, *[usual * (4 if self.side == "reference" else 2)] * 4]

    sides = {
        "reference": Changing("reference", 100_000, (3, 4)),
        "candidate": Changing("candidate", 50_000, (5,)),
    }
    monkeypatch.setattr(LatencyWorker, "_opened", lambda self, side, *_: sides[side])
    assert LatencyWorker(LARGE).relative(SMALL, min_time=60).fraction == pytest.approx(0.5)
    assert asked.count("reference") == asked.count("candidate") == 32
    # who leads a round finds the other one's data in the caches: each leads half of them
    assert asked[0] != asked[4]


def test_a_slow_network_gets_fewer_rounds() -> None:
    with LatencyWorker(LARGE) as worker:
        rounds = _alternating({side: worker._opened(side, LARGE, None, None)
                               for side in ("reference", "candidate")}, 1e-9)  # fmt: skip
        assert [len(calls) for calls in rounds[0]] == [4, 4]
        assert len(rounds) == 4


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

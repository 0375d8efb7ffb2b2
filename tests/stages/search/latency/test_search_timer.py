"""What is timed, how often, and what is remembered; in onnxruntime."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import onnxruntime
import pytest
import torch
from search_nets import even_counts, problem, trained
from search_stages import MadeUpTimer

from stages.benchmark import LatencyWorker, RelativeLatency
from stages.prune import ChannelPlan, prune
from stages.search import SearchProblem
from stages.search.latency import (
    CandidateTimer,
    Measurement,
    StartLatency,
    TimingSetting,
    time_start,
)
from stages.search.latency import timer as module


def timer(kind: type[CandidateTimer] = CandidateTimer, **settings: object) -> CandidateTimer:
    model, graph, splits = trained()
    example, _ = splits.search.take(2, seed=0)
    return kind(model, graph, problem().ranking, example, TimingSetting(), **settings)


def test_what_is_timed_is_the_cut_network() -> None:
    model, graph, splits = trained()
    ready = problem()
    keep = ready.ranking.keep(even_counts(ready))
    with timer() as watch:
        session = onnxruntime.InferenceSession(
            watch.sliced(keep), providers=["CPUExecutionProvider"]
        )
    x, _ = splits.search.take(4, seed=0)
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.contiguous().numpy()})
    with torch.inference_mode():
        expected = prune(model, graph, ChannelPlan(keep)).eval()(x).numpy()
    assert np.abs(expected - logits).max() < 1e-4


def test_measured_once_then_remembered() -> None:
    seen: list[tuple[int, ...]] = []
    counts = even_counts(problem())
    with timer(seconds=0.01, on_measure=lambda key, one: seen.append(key)) as watch:
        first, second = watch.measure(counts), watch.measure(counts)
    assert first is second
    assert seen == [tuple(counts.tolist())]
    assert first.seconds > 0
    assert first.fraction == pytest.approx(first.seconds / first.uncut_seconds, rel=3)


def test_remeasuring_keeps_the_worse_time_and_happens_once() -> None:
    class Slower(MadeUpTimer):
        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            asked.append(seconds)
            found = super()._time(counts, seconds)
            return replace(found, fraction=found.fraction * (1.2 if seconds > 0.1 else 1.0))

    asked: list[float] = []
    watch, counts = timer(Slower), even_counts(problem())
    short = watch.measure(counts)
    long = watch.remeasure(counts)
    assert long.fraction == pytest.approx(1.2 * short.fraction)
    assert long.remeasured
    assert watch.remeasure(counts) is long is watch.measure(counts)
    assert asked == [0.1, 0.5]


def test_what_an_interrupted_search_measured_is_not_measured_again() -> None:
    counts = even_counts(problem())
    known = {tuple(counts.tolist()): Measurement(0.5, 1e-3, 2e-3)}
    assert timer(known=known).measure(counts).fraction == 0.5


def test_the_start_of_a_round_is_timed_against_the_original() -> None:
    ready = problem()
    small = smaller(ready)
    with timer(seconds=0.01) as original, small:
        found = time_start(original, small)
    assert 0 < found.fraction < 3
    assert found.original_seconds > 0


def test_the_start_is_the_middle_of_several_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    fractions = iter([0.4, 0.52, 0.5])

    class Clock(LatencyWorker):
        def relative(self, *given: object, **settings: object) -> RelativeLatency:
            fraction = next(fractions)
            return RelativeLatency(fraction * 1e-3, 1e-3, fraction)

    monkeypatch.setattr(module, "LatencyWorker", Clock)
    with timer() as original, timer() as start:
        found = time_start(original, start)
    assert found.fraction == 0.5
    assert next(fractions, None) is None


def smaller(ready: SearchProblem) -> CandidateTimer:
    """A timer whose uncut network is a candidate of the trained one."""
    keep = ready.ranking.keep(ready.space.floors)

    class Cut(CandidateTimer):
        def sliced(self, wanted: object) -> bytes:
            return super().sliced(keep)

    return timer(Cut, seconds=0.01)


@pytest.mark.parametrize("damage", [{}, {"fraction": 0.0}, {"fraction": "0.5"}, {"fraction": None}])
def test_a_damaged_note_of_it_is_measured_again(damage: dict[str, object]) -> None:
    kept = asdict(StartLatency(0.5, 2e-3))
    assert StartLatency.from_dict(kept) == StartLatency(0.5, 2e-3)
    assert StartLatency.from_dict({**kept, **damage} if damage else None) is None

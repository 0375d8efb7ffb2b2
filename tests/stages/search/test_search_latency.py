"""Latency budgets: the table's arithmetic on made-up timings, and one real search in
onnxruntime.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from search_nets import setup, trained
from test_search_stage import context

import stages.search.stage as module
from pipeline.channels.widths import LayerWidths
from pipeline.errors import Refused, UsageError
from stages.prune import ChannelPlan, CostModel, prune
from stages.search.budget import Projector
from stages.search.calibrate import calibrate
from stages.search.journal import Journal
from stages.search.latency import LatencyCost, fit_latency
from stages.search.stopwatch import Measurement, Stopwatch, spread_out


def made_up(counts: np.ndarray, widths: LayerWidths, whole: np.ndarray, block: int) -> np.ndarray:
    """A machine that takes 20 % whatever the widths, and computes in blocks of channels."""

    def macs(k: np.ndarray) -> np.ndarray:
        out, into = k @ widths.out.T + widths.out_fixed, k @ widths.into.T + widths.into_fixed
        up = [np.where(w > 1, np.ceil(w / block) * block, w) for w in (out, into)]
        speed = np.where(np.array(widths.kinds) == "depthwise", 0.3, 1.0)
        return (up[0] * up[1] * widths.rest * widths.pixels / speed).sum(axis=1)

    return 0.2 + 0.8 * macs(counts) / macs(whole[None])


def samples(count: int, seed: int = 0) -> tuple[np.ndarray, LayerWidths, np.ndarray]:
    _, graph, _ = trained()
    ready = setup()
    macs = ready.costs["macs"]
    counts = spread_out(
        ready.space, Projector(ready.space, macs, macs.of(ready.space.sizes)), count, seed
    )
    return counts, LayerWidths.of(graph, ready.space.ids), ready.space.sizes


def test_layer_widths_are_those_of_the_cost_model() -> None:
    _, graph, _ = trained()
    counts, widths, _ = samples(3)
    rows = {row.name: row for row in CostModel(graph).layers(setup().space.as_dict(counts[0]))}
    out = counts[0] @ widths.out.T + widths.out_fixed
    into = counts[0] @ widths.into.T + widths.into_fixed
    for index, name in enumerate(widths.names):
        assert out[index] == rows[name].out_channels
        assert (
            out[index] * into[index] * widths.rest[index] * widths.pixels[index] == rows[name].macs
        )


@pytest.mark.parametrize("block", [1, 16])
def test_table_learns_a_made_up_machine_and_its_block(block: int) -> None:
    _, graph, _ = trained()
    counts, widths, whole = samples(60)
    rng = np.random.default_rng(0)
    truth = made_up(counts, widths, whole, block)
    table = fit_latency(graph, setup().space.ids, counts[:40], truth[:40] * rng.normal(1, 0.01, 40))
    predicted = np.array([table.of(one) for one in counts[40:]])
    assert np.median(np.abs(predicted / truth[40:] - 1)) < 0.05
    assert table.error < 0.05
    if block > 1:
        assert table.block == block


def test_wider_is_never_predicted_faster_and_deltas_add_up() -> None:
    _, graph, _ = trained()
    counts, widths, whole = samples(40)
    table = fit_latency(graph, setup().space.ids, counts, made_up(counts, widths, whole, 8))
    steps = np.full(len(whole), 8)
    for one in counts[:5]:
        deltas = table.deltas(one, steps)
        assert (deltas >= 0).all()
        for group in range(len(whole)):
            wider = one.copy()
            wider[group] += 8
            assert table.of(wider) - table.of(one) == pytest.approx(deltas[group], abs=1e-12)
    assert isinstance(table, LatencyCost)


class Recorded(Stopwatch):
    """Timings of the made-up machine, slower than its table says for one candidate in three."""

    def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
        ready = setup()
        widths = LayerWidths.of(self.graph, ready.space.ids)
        fraction = float(made_up(counts[None], widths, ready.space.sizes, 8)[0])
        off = 1.03 if int(counts.sum()) // 8 % 3 == 0 else 0.99
        return Measurement(fraction * off, fraction * off * 1e-3, 1e-3)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> module.SearchStage:
    model, _, splits = trained()
    monkeypatch.setattr(module, "load_model", lambda folder: model)
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits)
    return module.STAGE()


@pytest.mark.parametrize("mode", ["predicted", "hybrid", "measured"])
def test_finalists_keep_the_measured_budget(
    stage: module.SearchStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(module, "Stopwatch", Recorded)
    ctx = context(tmp_path, budget={"latency": 0.6}, latency=mode)
    stage.run(ctx)
    found = json.loads((ctx.out / "search.json").read_text())["latency"]
    assert found["predicted"] <= 0.62
    assert found["base_ms"] == 1.0
    if mode == "predicted":
        assert found["predicted"] <= 0.6
    else:
        assert 0.5 < found["measured"] <= 0.6
    lines = [json.loads(line) for line in (ctx.out / "trials.jsonl").read_text().splitlines()[1:]]
    assert sum(line["phase"] == "latency" for line in lines) >= 40
    assert all("latency" in line for line in lines if line["phase"] == "rl")


def test_latency_budget_in_milliseconds_and_unreachable_ones(tmp_path: Path) -> None:
    model, graph, _ = trained()

    def calibrated(**budget: float) -> float:
        ready = setup(budget=budget)
        watch = Recorded(model, graph, ready.evaluator.ranking, ready.evaluator.x[:2])
        return calibrate(ready, watch, lambda done, total: None).share

    assert calibrated(latency_ms=0.7) == pytest.approx(0.7)
    with pytest.raises(UsageError, match="asks for nothing"):
        calibrated(latency_ms=2.0)
    with pytest.raises(
        UsageError,
        match=r"search\.budget\.latency=0\.05 cannot be met: the smallest reachable is 0\.",
    ):
        calibrated(latency=0.05)


def test_no_finalist_in_time_is_refused(
    stage: module.SearchStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Recorded):
        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            return (
                super()._time(counts, seconds)
                if len(self.known) < 40
                else Measurement(0.9, 0.9e-3, 1e-3)
            )

    monkeypatch.setattr(module, "Stopwatch", Slow)
    with pytest.raises(Refused, match="measured within the latency budget"):
        stage.run(context(tmp_path, budget={"latency": 0.6}))


def test_a_finalist_that_a_short_timing_flattered_is_timed_for_longer(
    stage: module.SearchStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[int, ...], float]] = []

    class Flattered(Recorded):
        def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
            honest = super()._time(counts, seconds)
            asked.append((tuple(counts.tolist()), seconds))
            short = len(self.known) >= 40 and seconds < 0.5
            return Measurement(0.7 * honest.fraction, honest.seconds, 1e-3) if short else honest

    monkeypatch.setattr(module, "Stopwatch", Flattered)
    ctx = context(tmp_path, budget={"latency": 0.6})
    stage.run(ctx)
    found = json.loads((ctx.out / "search.json").read_text())["latency"]
    assert found["predicted"] <= 0.62, "by the table, which was fitted to honest timings"
    assert 0.5 < found["measured"] <= 0.6
    longer = [key for key, seconds in asked if seconds >= 0.5]
    assert len(longer) == len(set(longer)) > 0, "once a candidate"
    journal = Journal.open(
        ctx.work / "trials.jsonl", json.loads((ctx.work / "trials.jsonl").open().readline())
    )
    assert {key for key, one in journal.measured.items() if one.confirmed} == set(longer)


def test_what_is_timed_is_the_cut_network() -> None:
    model, graph, _ = trained()
    ready = setup()
    keep = ready.evaluator.ranking.keep(ready.projector.logits(np.zeros(len(ready.space))))
    with Stopwatch(model, graph, ready.evaluator.ranking, ready.evaluator.x[:2]) as watch:
        graph_bytes = watch.sliced(keep)
    session = onnxruntime.InferenceSession(graph_bytes, providers=["CPUExecutionProvider"])
    x = ready.evaluator.x[:4].contiguous()
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        assert (
            np.abs(prune(model, graph, ChannelPlan(keep)).eval()(x).numpy() - logits).max() < 1e-4
        )


def test_measured_once_then_remembered() -> None:
    model, graph, _ = trained()
    ready = setup()
    seen: list[tuple[int, ...]] = []
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    ranking, example = ready.evaluator.ranking, ready.evaluator.x[:2]
    with Stopwatch(
        model, graph, ranking, example, min_seconds=0.01, on_measure=lambda k, m: seen.append(k)
    ) as watch:
        first, second = watch.measure(counts), watch.measure(counts)
    assert first is second
    assert seen == [tuple(counts.tolist())]
    assert first.seconds > 0
    assert first.fraction == pytest.approx(first.seconds / first.base_seconds, rel=3)

"""The latency table on made-up timings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from search_nets import problem, trained
from search_stages import made_up

from pipeline.channels.widths import LayerWidths
from stages.prune import CostModel
from stages.search.latency import fit_latency, spread_out
from stages.search.latency.fitting import nonnegative


def samples(count: int, seed: int = 0) -> tuple[np.ndarray, LayerWidths, np.ndarray]:
    _, graph, _ = trained()
    ready = problem()
    counts = spread_out(ready.space, ready.costs["macs"], count, seed)
    return counts, LayerWidths.of(graph, ready.space.ids), ready.space.sizes


def test_layer_widths_are_those_of_the_cost_model() -> None:
    _, graph, _ = trained()
    counts, widths, _ = samples(3)
    rows = {row.name: row for row in CostModel(graph).layers(problem().space.as_dict(counts[0]))}
    out = counts[0] @ widths.out.T + widths.out_fixed
    into = counts[0] @ widths.into.T + widths.into_fixed
    macs = out * into * widths.rest * widths.pixels
    for index, name in enumerate(widths.names):
        assert out[index] == rows[name].out_channels
        assert macs[index] == rows[name].macs


def test_candidates_for_the_table_are_of_all_sizes() -> None:
    counts, _, whole = samples(20)
    ready = problem()
    shares = ready.costs["macs"].each(counts) / ready.costs["macs"].of(whole)
    assert shares.min() < 0.3
    assert shares.max() > 0.85
    assert all(ready.space.allows(row) for row in counts)
    assert len({tuple(row) for row in counts.tolist()}) > 15


@pytest.mark.parametrize("block", [1, 16])
def test_table_learns_a_made_up_machine_and_its_block(block: int) -> None:
    _, graph, _ = trained()
    counts, widths, whole = samples(60)
    noise = np.random.default_rng(0).normal(1, 0.01, 40)
    truth = made_up(counts, widths, whole, block)
    table = fit_latency(graph, problem().space.ids, counts[:40], truth[:40] * noise)
    predicted = np.array([table.of(one) for one in counts[40:]])
    assert np.median(np.abs(predicted / truth[40:] - 1)) < 0.05
    assert table.error < 0.05
    if block > 1:
        assert table.block == block


def test_wider_is_never_predicted_faster_and_deltas_add_up() -> None:
    _, graph, _ = trained()
    counts, widths, whole = samples(40)
    table = fit_latency(graph, problem().space.ids, counts, made_up(counts, widths, whole, 8))
    steps = np.full(len(whole), 8)
    for one in counts[:5]:
        deltas = table.deltas(one, steps)
        assert (deltas >= 0).all()
        for group in range(len(whole)):
            wider = one.copy()
            wider[group] += 8
            assert table.of(wider) - table.of(one) == pytest.approx(deltas[group], abs=1e-12)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 1.0])
def test_nonnegative_minimises_what_it_says(ridge: float) -> None:
    rng = np.random.default_rng(0)
    features, centre = rng.uniform(0, 1, (12, 5)), rng.uniform(0, 1, 5)
    target = features @ np.array([1.0, 0.0, -0.5, 2.0, 0.0])

    def loss(x: np.ndarray) -> float:
        misses = np.mean((features @ x - target) ** 2)
        return float(misses + ridge * ((x - centre) ** 2).sum() / 5)

    found = nonnegative(features, target, centre, ridge)
    other = minimize(loss, np.ones(5), bounds=[(0, None)] * 5, tol=1e-12)
    assert (found >= 0).all()
    if ridge < 1:
        assert found[2] == 0, "a negative coefficient would fit better"
    assert loss(found) <= other.fun + 1e-9

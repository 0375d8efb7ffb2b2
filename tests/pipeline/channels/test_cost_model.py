"""One count of MACs and parameters: by hand, by torch's counter, by the cut network itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_nets import Auxiliary, Small, small_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pipeline.channels.costs import CostModel, ProductCost
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.channels.widths import LayerWidths, Lengths

IDS = ("a", "b")
COUNTS = np.array([[3, 2], [8, 12], [1, 12], [5, 7]])


def test_rows_by_hand(graph: ChannelGraph) -> None:
    costs = CostModel(graph)
    rows = {row.name: row for row in costs.layers({"a": 3, "b": 2})}
    assert (rows["a"].macs, rows["a"].params) == (6 * 6 * 3 * 3 * 9, 3 * 3 * 9)
    assert (rows["a"].out_channels, rows["a"].in_channels) == (3, 3)
    assert (rows["n"].macs, rows["n"].params, rows["n"].out_channels) == (0, 3 + 3, 3)
    assert (rows["d"].macs, rows["d"].out_channels, rows["d"].in_channels) == (4 * 4 * 3 * 9, 3, 3)
    assert (rows["head"].macs, rows["head"].params) == (2 * 4, 2 * 4 + 4)
    assert sum(row.macs for row in rows.values()) == costs.macs({"a": 3, "b": 2})
    assert sum(row.params for row in rows.values()) == costs.params({"a": 3, "b": 2})


def test_a_parameter_that_only_training_uses_counts_and_multiplies_nothing() -> None:
    net, x = Auxiliary(), torch.randn(2, 3, 8, 8)
    costs = CostModel(small_graph(net))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(x)
    assert costs.macs() * 2 * len(x) == counter.get_total_flops()
    assert costs.params() == sum(p.numel() for p in net.parameters())


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_cut_costs_what_the_cut_network_costs(
    net: Small, graph: ChannelGraph, data: st.DataObject
) -> None:
    kept = {group: data.draw(st.integers(1, graph[group].size)) for group in IDS}
    plan = ChannelPlan({group: tuple(range(count)) for group, count in kept.items()})
    small = cut(net, graph, plan).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small(torch.zeros(1, 3, 8, 8))
    assert 2 * CostModel(graph).macs(kept) == counter.get_total_flops()
    assert CostModel(graph).params(kept) == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_many_candidates_at_once_cost_what_each_costs(graph: ChannelGraph, metric: str) -> None:
    cost = getattr(ProductCost, metric)(graph, IDS)
    exact = getattr(CostModel(graph), metric)
    expected = [exact(dict(zip(IDS, counts, strict=True))) for counts in COUNTS.tolist()]
    assert cost.each(COUNTS).tolist() == expected
    assert [cost.of(counts) for counts in COUNTS] == expected
    assert [cost.terms(counts).sum() for counts in COUNTS] == expected


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_deltas_are_differences(graph: ChannelGraph, metric: str) -> None:
    cost, counts, steps = getattr(ProductCost, metric)(graph, IDS), COUNTS[0], np.array([2, -1])
    moved = [cost.of(counts + np.eye(2, dtype=int)[g] * steps) - cost.of(counts) for g in range(2)]
    assert cost.deltas(counts, steps).tolist() == moved


def test_groups_that_are_not_asked_about_stay_whole(graph: ChannelGraph) -> None:
    alone = ProductCost.macs(graph, ["b"])
    assert alone.of(np.array([5])) == CostModel(graph).macs({"b": 5})


def test_lengths_of_dimensions(graph: ChannelGraph) -> None:
    lengths = Lengths(graph, IDS)
    assert lengths.cut_dims("b.weight") == [0, 1]
    assert lengths.along("b.weight", 1).per_unit.tolist() == [1, 0]
    assert lengths.along("a.weight", 1).of(COUNTS[0]) == 3  # the image's channels
    assert lengths.along("head.weight", 1).of(COUNTS[0]) == 2


def test_widths_of_layers(graph: ChannelGraph) -> None:
    widths = LayerWidths.of(graph, IDS)
    assert dict(zip(widths.names, widths.kinds, strict=True)) == {
        "a": "dense",
        "d": "depthwise",
        "b": "pointwise",
        "head": "linear",
    }
    assert (widths.out @ COUNTS[0] + widths.out_fixed).tolist() == [3, 3, 2, 4]
    assert (widths.into @ COUNTS[0] + widths.into_fixed).tolist() == [3, 1, 3, 2]
    assert widths.pixels.tolist() == [36, 16, 16, 1]
    assert widths.rest.tolist() == [9, 9, 1, 1]

"""Scores added up over the slices of units, by hand."""

from __future__ import annotations

import torch
from channel_nets import Small

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.group import ChannelGroup, Member
from pipeline.channels.importance import unit_sums, weight_norms

PAIRS = ChannelGroup(
    "conv", 2, (Member("conv.weight", 0, (0, 1)), Member("fc.weight", 1, (0, 1, 2, 3)))
)
SLICES = {
    "conv": PAIRS.tables(),
    "norm": [ChannelGroup("n", 1, (Member("n", 0, (0,)),)).tables()[0]],
}


def test_a_unit_is_the_sum_of_its_rows_and_columns() -> None:
    tensors = {
        "conv.weight": torch.tensor([[1.0, -2.0], [3.0, 4.0]]),
        "fc.weight": torch.tensor([[0.5, 0.5, -1.0, 1.0]]),
    }
    sums = unit_sums(SLICES, tensors, torch.abs)
    assert sums["conv"].tolist() == [1 + 2 + 0.5 + 0.5, 3 + 4 + 1 + 1]
    assert sums["conv"].dtype == torch.float64
    assert set(sums) == {"conv"}  # nothing of the other group was scored


def test_sums_of_half_precision_are_made_in_full() -> None:
    weight = torch.full((2, 40_000), 1 / 256, dtype=torch.bfloat16)
    sums = unit_sums(SLICES, {"conv.weight": weight}, torch.abs)
    assert sums["conv"].tolist() == [40_000 / 256] * 2


def test_blocks_of_rows_add_up_to_the_whole() -> None:
    weight = torch.randn(700, 600, generator=torch.Generator().manual_seed(0))
    both = ChannelGroup(
        "g", 600, (Member("w", 1, tuple(range(600))), Member("w", 0, tuple(range(600))))
    )
    sums = unit_sums({"g": both.tables()}, {"w": weight}, torch.square)
    expected = weight.double().square().sum(0) + weight.double().square().sum(1)[:600]
    assert torch.allclose(sums["g"], expected, rtol=1e-6)


def test_norms_of_groups_without_weights_are_zero(net: Small, graph: ChannelGraph) -> None:
    norms = weight_norms(net, {**graph.slices, "norm": SLICES["norm"]})
    assert norms["norm"].tolist() == [0.0]
    squares = net.a.weight.detach().double().square().sum((1, 2, 3))
    squares += net.d.weight.detach().double().square().sum((1, 2, 3))
    squares += net.b.weight.detach().double().square().sum((0, 2, 3))
    assert torch.allclose(norms["a"], squares.sqrt())

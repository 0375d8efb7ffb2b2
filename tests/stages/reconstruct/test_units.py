"""Which units stay, by the moments: copies of others go first, one of each pair."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stages.reconstruct import Moments, rank_units
from stages.trace import trace
from tests.stages.reconstruct.twin_nets import WIDTH, Net, grouped, transposed


def importance(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    graph = trace(net, x[:1])
    return rank_units(Moments(net, graph, x), graph)["layers.a"]


@pytest.mark.parametrize("case", [transposed, grouped])
def test_of_each_pair_one_goes_first(case) -> None:
    torch.manual_seed(0)
    net, x = case().net, case().x
    scores = importance(net, x)
    order = scores.argsort().tolist()
    half = len(order) // 2
    assert sorted(unit // 2 for unit in order[:half]) == list(range(half))
    # the last of the copies costs next to nothing, the first that has no copy left costs much more
    assert scores[order[half]] > 2 * scores[order[half - 1]]


def test_first_go_units_that_no_weight_reads() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda x, a, b, c: (b(F.relu(a(x))) + c(F.relu(a(x)))).flatten(1),
        a=nn.Conv2d(3, WIDTH, 3),
        b=nn.Conv2d(WIDTH, 4, 1),
        c=nn.Conv2d(WIDTH, 4, 1),
    )
    with torch.no_grad():
        net.layers["b"].weight[:, [1, 2, 5]] = 0
        net.layers["c"].weight[:, [1, 2, 6]] = 0
    order = importance(net, torch.randn(64, 3, 7, 7)).argsort().tolist()
    assert sorted(order[:2]) == [1, 2]


def test_a_group_whose_readers_have_no_moments_is_indifferent() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda x, a, n, b: b(n(a(x))),
        a=nn.Linear(6, WIDTH),
        n=nn.LayerNorm(WIDTH),
        b=nn.Linear(WIDTH, 4),
    )
    x = torch.randn(64, 6)
    graph = trace(net, x[:1], open_statistics=True)
    found = rank_units(Moments(net, graph, x), graph)
    assert torch.equal(found["layers.a"], torch.zeros(WIDTH, dtype=torch.float64))

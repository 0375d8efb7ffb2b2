"""Every topology in its smallest net: exact widths, cut equals silenced, unit order without
effect, exact counts.
"""

from __future__ import annotations

import pytest
import torch
from small_nets import CASES
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from whole_state import whole_state

from stages.prune import ChannelPlan, CostModel, prove, prove_order, prune
from stages.trace import ChannelGraph, trace


@pytest.mark.parametrize("name", CASES)
def test_small_net(name: str) -> None:
    torch.manual_seed(0)
    net, x = CASES[name].build(), torch.randn(CASES[name].shape)
    _randomise(net)
    before = whole_state(net)
    graph = trace(net, x)
    assert whole_state(net) == before
    assert {group.id: group.size for group in graph.prunable} == CASES[name].units
    assert ChannelGraph.from_json(graph.to_json()) == graph
    plan = ChannelPlan.uniform(graph, 0.5)
    fresh = torch.randn_like(x)
    assert prove(net, graph, plan, [fresh]).relative < 1e-12
    assert prove_order(net, graph, [fresh]).relative < 1e-12

    small, costs = prune(net, graph, plan), CostModel(graph)
    assert costs.params(plan.counts()) == sum(p.numel() for p in small.parameters())
    assert costs.macs(plan.counts()) * 2 * len(x) == _flops(small, x)
    assert costs.macs() * 2 * len(x) == _flops(net, x)
    again = trace(small, x)
    assert prove(small, again, ChannelPlan.uniform(again, 0.4), [fresh]).relative < 1e-12


def _randomise(net: torch.nn.Module) -> None:
    """Statistics and one-dimensional parameters that are neither 0 nor 1."""
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if name.endswith(("var", "weight")) else tensor.normal_(
                    0, 0.3
                )


def _flops(net: torch.nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        net.eval()(x)
    return counter.get_total_flops()

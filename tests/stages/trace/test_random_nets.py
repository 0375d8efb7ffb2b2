"""Compositions of all topologies: any cut equals the silenced net, unit order is without
effect, counts are exact.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_nets import BLOCKS, RandomNet, Spec, specs
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from whole_state import whole_state

from stages.prune import ChannelPlan, CostModel, prove, prove_order, prune
from stages.trace import ChannelGraph, trace

LIMIT = 1e-9
MAY_STAY = {  # what is open elsewhere must not close
    "layer_norm_mlp", "channel_mean", "blur", "weight_view", "weight_sum", "cache_width", "rolled",
    "by_width", "padded_by_width", "branch_by_width",
}  # fmt: skip


@given(spec=specs, flat=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_net(spec: Spec, flat: bool, seed: int) -> None:
    check(spec, flat, seed)


@pytest.mark.parametrize("kind", BLOCKS)
def test_each_block_between_convolutions(kind: str) -> None:
    graph = check([("conv", 2), (kind, 2), ("conv", 3)], False, 0)
    assert graph["blocks.2.a"].prunable
    assert graph["blocks.0.a"].prunable or kind in MAY_STAY


def check(spec: Spec, flat: bool, seed: int) -> ChannelGraph:
    """Trace one network and hold it to every promise."""
    torch.manual_seed(seed)
    net = RandomNet(spec, flat).eval()
    with torch.no_grad():
        for tensor in net.buffers():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 8, 8)
    before = whole_state(net)
    graph = trace(net, x)
    assert whole_state(net) == before
    plan = random_plan(graph, seed)
    assert prove(net, graph, plan, [x]).relative < LIMIT
    assert prove_order(net, graph, [x], seed=seed).relative < LIMIT
    small, costs = prune(net, graph, plan), CostModel(graph)
    assert whole_state(net) == before
    assert costs.params(plan.counts()) == sum(p.numel() for p in small.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        small(x)
    # einsum multiplies by a single channel as no counter sees
    if not ("einsum_mix" in dict(spec) and 1 in plan.counts().values()):
        assert costs.macs(plan.counts()) * 2 * len(x) == counter.get_total_flops()
    return graph


def random_plan(graph: ChannelGraph, seed: int) -> ChannelPlan:
    """Another number of units from every group."""
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for group in graph.prunable:
        count = int(torch.randint(1, group.size + 1, (), generator=generator))
        keep[group.id] = tuple(
            sorted(torch.randperm(group.size, generator=generator)[:count].tolist())
        )
    return ChannelPlan(keep)

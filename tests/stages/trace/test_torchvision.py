"""One member of each torchvision family at 64 pixels; `make breadth` surveys all of them at
their usual size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from whole_state import whole_state

from stages.prune import ChannelPlan, CostModel, prove, prove_order, prune
from stages.trace import trace

sys.path.append(str(Path(__file__).parents[2] / "bench"))
from zoo import CNNS, TRANSFORMERS, build

LIMIT = 1e-9

# prunable groups and units; ResNet-18, say, has 8 inner widths and 4 residual trunks, GoogLeNet 4
# groups in aux heads
FAMILIES = {
    "resnet18": (12, 3 * (64 + 128 + 256 + 512)),
    "squeezenet1_1": (25, 2944),
    "mobilenet_v2": (25, 9128),
    "mobilenet_v3_small": (27, 4872),
    "googlenet": (61, 9584),
    "densenet121": (120, 10240),
    "shufflenet_v2_x0_5": (20, 1927),
    "mnasnet0_5": (25, 5744),
    "efficientnet_b0": (40, 11404),
    "regnet_y_400mf": (53, 2048),
    "resnext50_32x4d": (37, 4376),
    "convnext_tiny": (18, 26496),
}


def test_the_survey_covers_every_classifier() -> None:
    assert len(CNNS) == 68
    assert len(TRANSFORMERS) == 12
    assert set(FAMILIES) <= set(CNNS)


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    model, x = build(name), torch.randn(1, 3, 64, 64)
    before = whole_state(model)
    graph = trace(model, x)
    assert whole_state(model) == before
    assert (len(graph.prunable), sum(group.size for group in graph.prunable)) == FAMILIES[name]
    plan = ChannelPlan.uniform(graph, 0.5)
    assert prove(model, graph, plan, [x]).relative < LIMIT
    assert prove_order(model, graph, [x]).relative < LIMIT
    costs, small = CostModel(graph), prune(model, graph, plan)
    assert costs.params(plan.counts()) == sum(p.numel() for p in small.parameters())
    for network, kept in ((model, None), (small, plan.counts())):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x)
        assert costs.macs(kept) * 2 == counter.get_total_flops()

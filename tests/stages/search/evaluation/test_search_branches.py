"""Candidates without some of their branches are what `prune` makes of them, in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.channels.widths import LayerWidths
from pipeline.models.registry import BUILTIN
from stages.prune import ChannelPlan, prune
from stages.reconstruct.branch_refits import BranchRefits
from stages.reconstruct.independent import Moments
from stages.search.evaluation.candidate_network import CandidateNetwork
from stages.search.latency.table import LatencyCost
from stages.trace import trace

X = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fitted", [False, True])
def test_branches_come_and_go(fitted: bool) -> None:
    torch.manual_seed(0)
    net = BUILTIN["resnet20"](num_classes=4, width=8).eval()
    graph = trace(net, X[:1])
    ids = [group.id for group in graph.prunable]
    moments = Moments(net, graph, X, branches=BranchRefits.of(net, graph, X))
    candidate = CandidateNetwork(net, graph, ids, moments.refitted if fitted else ())
    even = ChannelPlan.uniform(graph, 0.4).keep
    for drop in [("layer1.0",), (), ("layer2.0", "layer1.0"), ("layer3.2",)]:
        gone = {group: () for name in drop for group in graph.removable[name].groups}
        keep = {**even, **gone}
        tensors = moments.tensors_after(keep) if fitted else None
        expected = prune(net, graph, ChannelPlan.of(graph, keep)).eval()
        if tensors is not None:
            expected.load_state_dict(tensors, strict=False)
        with torch.inference_mode():
            found = candidate.resize(keep, tensors).eval()(X)
            torch.testing.assert_close(found, expected(X), rtol=1e-4, atol=1e-4)


def test_a_branch_that_has_gone_takes_no_time() -> None:
    net = BUILTIN["resnet20"](num_classes=4, width=8).eval()
    graph = trace(net, X[:1])
    ids = [group.id for group in graph.prunable]
    whole = np.array([graph[name].size for name in ids])
    widths = LayerWidths.of(graph, ids)
    ones = np.ones(len(widths.names))
    table = LatencyCost(widths, whole, arithmetic=ones, traffic=ones)
    counts = whole.copy()
    counts[ids.index("layer2.1.conv1")] = 0
    inside = sum(name.startswith("layer2.1.") for name in widths.names)
    assert inside == 2
    # one for the arithmetic of each layer, and one for its output
    assert table.of(whole) - table.of(counts) == pytest.approx(2 * inside)
    nothing = np.where(np.arange(len(ids)) == ids.index("layer2.1.conv1"), 8, 0)
    assert not table.deltas(counts, nothing).any()

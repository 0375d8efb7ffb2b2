"""Candidates without some of their branches are what `prune` makes of them, in any order."""

from __future__ import annotations

import pytest
import torch

from pipeline.models.registry import BUILTIN
from stages.prune import ChannelPlan, prune
from stages.reconstruct.independent import Moments
from stages.search.evaluation.candidate_network import CandidateNetwork
from stages.trace import trace

X = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fitted", [False, True])
def test_branches_come_and_go(fitted: bool) -> None:
    torch.manual_seed(0)
    net = BUILTIN["resnet20"](num_classes=4, width=8).eval()
    graph = trace(net, X[:1])
    ids = [group.id for group in graph.prunable]
    moments = Moments(net, graph, X)
    moments.measure_branches(net, X)
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

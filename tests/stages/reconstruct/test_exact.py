"""Where exact weights exist, both forms find them: for every kind of layer that can lose inputs."""

from __future__ import annotations

import copy

import pytest
import torch

from pipeline.channels.rebuild import rebuild
from stages.prune import ChannelPlan, prune
from stages.reconstruct import Moments, reconstruct_layers
from stages.trace import trace
from tests.stages.reconstruct.twin_nets import CASES

ROUND_OFF = 1e-8  # relative, in float64; the least ridge is 1e-12


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    case = CASES[request.param]()
    case.net.double().eval()
    return case


def apart(one: torch.nn.Module, other: torch.nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        a, b = one(x), other(x)
    return float((a - b).abs().max() / b.abs().max())


def test_sequential_form_is_exact(case) -> None:
    x = case.x.double()
    graph, plan = trace(case.net, x[:2]), ChannelPlan(case.keep)
    small = prune(case.net, graph, plan)
    assert apart(small, case.net, x) > 1e-2
    done = reconstruct_layers(small, case.net, graph, plan, x)
    fresh = torch.randn_like(x)
    assert apart(done.model, case.net, fresh) < ROUND_OFF
    assert {layer.name for layer in done.layers if not layer.kept} == set(case.layers)
    assert all(layer.error_after < ROUND_OFF for layer in done.layers)


def test_independent_form_is_exact(case) -> None:
    x = case.x.double()
    graph, plan = trace(case.net, x[:2]), ChannelPlan(case.keep)
    moments = Moments(copy.deepcopy(case.net), graph, x)
    assert moments.left_alone == {}
    tensors = moments.tensors_after(plan.keep)
    model = rebuild(case.net, tensors, graph.widths_after(plan.keep))
    fresh = torch.randn_like(x)
    before = apart(prune(case.net, graph, plan), case.net, fresh)
    # its ridge is chosen once for all candidates, at a cut that leaves something to regularise
    assert apart(model, case.net, fresh) < 0.1 * before

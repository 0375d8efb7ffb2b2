"""Networks that torch.fx, torch.export or torch.compile made are as prunable as those they were
made from, and what is cut runs.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_nets import CASES
from test_group_statistics import group_std
from test_never_wrong import Net, X, assert_never_wrong, weight
from test_random_nets import random_plan
from torch import nn
from torch.nn import functional as F
from whole_state import whole_state

from pipeline.errors import UsageError
from pipeline.torchvision_import import import_torchvision
from stages.prune import prove, prove_order, prune
from stages.trace import ChannelGraph, trace


def exported(net: nn.Module) -> nn.Module:
    return torch.export.export(net, (X,)).module()


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "symbolic_trace": torch.fx.symbolic_trace,
    "traced twice": lambda net: torch.fx.symbolic_trace(torch.fx.symbolic_trace(net)),
    "exported": exported,
    "a traced child": lambda net: nn.Sequential(torch.fx.symbolic_trace(net)),
    "an exported child": lambda net: nn.Sequential(exported(net)),
    "a compiled child": lambda net: nn.Sequential(compiled(net)),
}
NETS = {
    **{name: CASES[name].build for name in ("Chain", "Residual", "SqueezeExcite", "Depthwise")},
    "a depthwise function": lambda: Net(
        lambda m, y: F.conv2d(y, m.w, None, 1, 1, 1, y.shape[1]), w=weight(16, 1, 3, 3)),
}  # fmt: skip


def shuffle(m: Any, y: torch.Tensor) -> torch.Tensor:
    y = m.g(y)
    b, c, h, w = y.shape
    return y.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)


def gated(m: Any, y: torch.Tensor) -> torch.Tensor:
    shares = m.q(y).mean((2, 3)).sigmoid().view(y.shape[0], 16, 1, 1)
    return y * shares.expand(-1, 16, 8, 8)


def apart(m: Any, y: torch.Tensor) -> torch.Tensor:
    one, other = y.split([5, 11], 1)
    return torch.cat([one, m.q(other)], 1)


def at_points(m: Any, y: torch.Tensor) -> torch.Tensor:
    return torch.cat([y[:, :5].tanh(), m.q(y.narrow(1, 5, 11))], 1)


def conv(width: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, width, 1, groups=groups)


# sizes are numbers of the user's own code, which exporting writes into the graph
NUMBERS = {
    "shuffled": Net(shuffle, g=conv(16, 4)),
    "gated": Net(gated, q=conv(16)),
    "apart": Net(apart, q=conv(11)),
    "at points": Net(at_points, q=conv(11)),
    "halves": Net(lambda m, y: torch.cat([m.q(z) for z in y.split(8, 1)], 1), q=conv(8)),
    "chunks": Net(lambda m, y: torch.cat([m.q(z) for z in y.chunk(2, 1)], 1), q=conv(8)),
    "group norms": Net(lambda m, y: m.n(m.g(m.o(y))), g=conv(16, 4), n=nn.GroupNorm(4, 16),
        o=nn.GroupNorm(2, 16)),
    "a functional group norm": Net(lambda m, y: F.group_norm(y, 4)),
    "blocks": Net(lambda m, y: group_std(y, 4) * y),
    "one by one": Net(lambda m, y: y.unflatten(1, (16, 1)).flatten(1, 2).reshape(-1, 16, 8, 8)),
    "flat": Net(lambda m, y: y + m.l(y.reshape(2, 16 * 64)).view(2, 16, 1, 1),
        l=nn.Linear(16 * 64, 16)),
    "by groups": Net(lambda m, y: F.conv2d(y, m.w, None, 1, 0, 1, 16), w=weight(16, 1, 1, 1)),
}  # fmt: skip
# fixed by what they mean, not by where they stand
STAY = {
    "points from the end": Net(lambda m, y: torch.cat([y[:, :-5], y[:, -5:].tanh()], 1)),
    "all channels": Net(lambda m, y: y.softmax(1)),
    "picked": Net(lambda m, y: y[:, [3, 5, 1]], width=3),
    "a multiple of a count": Net(lambda m, y: y.view(2, -1, 4 * 8, 8).view(2, 16, 8, 8).cumsum(1)),
}  # fmt: skip


def units(graph: ChannelGraph) -> list[int]:
    return sorted(group.size for group in graph.prunable)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETS)
def test_as_prunable_as_the_plain_network(
    name: str, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    plain = NETS[name]().eval()
    logging.getLogger("torch").setLevel(logging.ERROR)
    net, expected = WAYS[way](plain), trace(plain, X)
    before = whole_state(net)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = trace(net, X)
        assert units(graph) == units(expected)
        for seed in range(3):
            assert prove(net, graph, random_plan(graph, seed), [X]).relative < 1e-9
        assert prove_order(net, graph, [X]).relative < 1e-9
        small = prune(net, graph, random_plan(graph, 0))
        assert sum(units(trace(small, X))) < sum(units(graph))
    assert capfd.readouterr() == ("", "")
    assert whole_state(net) == before


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_the_graph_of_an_exported_program_follow(name: str) -> None:
    net = exported(NUMBERS[name].eval())
    before = net.code
    assert_never_wrong(net, opens=("a", "b"))
    graph = ChannelGraph.from_json(trace(net, X).to_json())
    small = prune(net, graph, random_plan(graph, 1))
    assert net.code == before
    assert sum(units(trace(small, X))) < sum(units(graph))


@pytest.mark.parametrize("name", ["gated", "apart", "shuffled", "one by one"])
def test_numbers_in_the_graph_of_a_traced_network_follow(name: str) -> None:
    net = torch.fx.symbolic_trace(NUMBERS[name].eval())
    assert_never_wrong(net, opens=("a", "b"))


@pytest.mark.parametrize("name", STAY)
def test_channels_of_exported_programs_stay_where_they_must(name: str) -> None:
    net = exported(STAY[name].eval())
    assert_never_wrong(net)
    assert not trace(net, X)["a"].prunable


def test_number_in_generated_code_follows_its_width() -> None:
    graph = trace(net := exported(NETS["a depthwise function"]().eval()), X)
    followed = {(width.attribute, width.value) for width in graph.widths}
    assert ("graph.conv2d_1.6", 16) in followed
    small = prune(net, graph, random_plan(graph, 0))
    kept = len(random_plan(graph, 0).keep["a"])
    numbers = {node.name: node.args[6:] for node in small.graph.nodes}
    assert numbers["conv2d_1"] == (kept,)


def test_feature_extractor() -> None:
    models = import_torchvision().models
    extract = importlib.import_module("torchvision.models.feature_extraction")
    net, images = models.resnet18(num_classes=5).eval(), torch.randn(1, 3, 64, 64)
    features = extract.create_feature_extractor(net, ["layer2.0.conv1", "fc"])
    graph, whole = trace(features, images), trace(net, images)
    assert graph.frozen["layer2.0.conv1"] == "model output"
    assert len(graph.prunable) == len(whole.prunable) - 1


def test_unflattened_program_is_refused() -> None:
    net = torch.export.unflatten(torch.export.export(CASES["Chain"].build(), (X,)))
    with pytest.raises(UsageError, match=r"UnflattenedModule.* cannot be copied"):
        trace(net, X)

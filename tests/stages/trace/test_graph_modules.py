"""Networks that torch.fx, torch.export or torch.compile made are as prunable as those they were
made from, and what is cut runs.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable

import pytest
import torch
from small_nets import CASES
from test_never_wrong import Net, X, weight
from test_random_nets import random_plan
from torch import nn
from torch.nn import functional as F
from whole_state import whole_state

from pipeline.errors import UsageError
from pipeline.models.torchvision_shim import import_torchvision
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

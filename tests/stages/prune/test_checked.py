"""`prune` hands out no network that differs from the silenced one, and says what differs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[1] / "trace"))
from test_never_wrong import Net, X
from whole_state import whole_state

from pipeline.channels.graph import ChannelGraph
from pipeline.errors import Refused, UsageError
from stages.prune import ChannelPlan, checked, prune
from stages.trace import trace


def traced(**parts: Any) -> tuple[nn.Module, ChannelGraph, ChannelPlan]:
    """A plain network, its graph and a plan that halves every group."""
    net = Net(lambda m, y: y, **parts).eval()
    graph = trace(net, X)
    return net, graph, ChannelPlan.uniform(graph)


def opened(graph: ChannelGraph, group_id: str) -> ChannelGraph:
    """A graph that allows a cut it should not."""
    groups = tuple(
        replace(g, prunable=True, reason="") if g.id == group_id else g for g in graph.groups
    )
    return replace(graph, groups=groups)


def forward_by_width(m, y):
    return y * y.shape[1]


def forward_that_stops(m, y):
    return y.view(y.shape[0], 16, 8, 8)


def forward_that_mixes(m, y):
    return y - y.mean(1, keepdim=True)


CHANGED = {
    forward_by_width: "of the largest output",
    forward_that_stops: "does not run, stopped at test_checked.py:",
    forward_that_mixes: "of the largest output",
}


@pytest.mark.parametrize("form", CHANGED, ids=lambda form: form.__name__)
def test_graph_of_another_forward_is_noticed(form: Callable[..., Any]) -> None:
    net, graph, plan = traced()
    net.form = form
    with pytest.raises(Refused, match=CHANGED[form]) as caught:
        prune(net, graph, plan)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert prune(net, graph, plan, check=False).a.out_channels == 8


def test_lost_classes_are_noticed() -> None:
    net, graph, _ = traced()
    with pytest.raises(Refused, match=r"has shape \(2, 2\), not \(2, 5\)"):
        prune(net, opened(graph, "head"), ChannelPlan({"head": (0, 1)}))


def test_check_leaves_network_and_terminal_alone(capfd: pytest.CaptureFixture[str]) -> None:
    net, graph, plan = traced()
    net.form = lambda m, y: (print("forward runs"), y)[1]
    net.train()
    net.b.eval()
    before = whole_state(net)
    small = prune(net, graph, plan)
    assert whole_state(net) == before
    assert capfd.readouterr() == ("", "")
    assert small.training
    assert not small.b.training


def test_inputs_of_ones_own() -> None:
    net, graph, plan = traced()
    net.form = lambda m, y: y if float(y.mean()) < 0.9 else y.relu() * y.shape[1]
    prune(net, graph, plan)  # noise does not go that way
    with pytest.raises(Refused, match="of the largest output"):
        prune(net, graph, plan, inputs=(X * 100,))


def test_without_inputs_to_check_on_it_says_so() -> None:
    net, graph, plan = traced()
    with pytest.raises(UsageError, match="does not say what its inputs are"):
        prune(net, replace(graph, inputs=()), plan)


class Words(nn.Module):
    """Whole numbers in, which no noise is."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.a, self.head = nn.Embedding(9, 4), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, words):
        return self.head(self.a(self.table(words)).relu().mean(1))


def test_inputs_that_are_no_images() -> None:
    words = torch.randint(0, 9, (2, 5))
    net = Words().eval()
    graph = trace(net, words)
    plan = ChannelPlan.uniform(graph)
    with pytest.raises(UsageError, match="cannot be checked on noise") as caught:
        prune(net, graph, plan)
    assert "inputs=" in caught.value.hint
    assert prune(net, graph, plan, inputs=(words,)).a.out_features == 4


def test_network_that_stays_in_float32_is_checked_there() -> None:
    net, graph, plan = traced()
    blur = torch.ones(1, 1, 3, 3)
    net.form = lambda m, y: F.conv2d(y.flatten(0, 1)[:, None], blur, padding=1).view(y.shape)
    assert prune(net, graph, plan).a.out_channels == 8
    net.form = lambda m, y: F.conv2d(y.flatten(0, 1)[:, None], blur * y.shape[1]).view(2, -1, 6, 6)
    with pytest.raises(Refused, match="1e-03 is allowed"):
        prune(net, graph, plan)


def test_network_without_values_is_cut_unchecked() -> None:
    net, graph, plan = traced()
    assert prune(net.to("meta"), graph, plan).a.weight.shape == (8, 3, 3, 3)


def test_groups_opened_on_request_need_not_be_equal() -> None:
    net = Net(
        lambda m, y: m.n(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(16)
    ).eval()
    graph = trace(net, X, open_statistics=True)
    assert not graph["a"].exact
    assert prune(net, graph, ChannelPlan({"a": (0, 2, 5)})).a.out_channels == 3


def test_check_takes_a_few_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    net, graph, plan = traced()
    seen: list[tuple[int, ...]] = []
    real = checked.prove

    def watched(*args: Any, **options: Any) -> Any:
        seen.extend(tuple(image.shape) for image in args[3])
        return real(*args, **options)

    monkeypatch.setattr(checked, "prove", watched)
    prune(net, replace(graph, inputs=((16, 3, 224, 224),)), plan)
    assert seen == [(2, 3, 64, 64)]

"""Criteria: by hand, and that scoring leaves everything as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from channel_nets import Small, digest
from torch.nn import functional as F

from pipeline.channels.graph import ChannelGraph
from pipeline.errors import UsageError
from stages.prune import CRITERIA, rank_channels
from stages.prune.importance import taylor


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_leaves_everything_as_it_was(
    net: Small, graph: ChannelGraph, criterion: str
) -> None:
    net.train()
    net.b.weight.requires_grad_(False)
    net.a.weight.grad = torch.ones_like(net.a.weight)
    before, random = digest(net), torch.get_rng_state()
    batches = [
        (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4))
    ]
    scores = rank_channels(net, graph, criterion, batches)
    assert {group: tuple(score.shape) for group, score in scores.items()} == {
        "a": (8,),
        "b": (12,),
        "head": (4,),
    }
    assert all(
        score.dtype == torch.float64 and bool(torch.isfinite(score).all())
        for score in scores.values()
    )
    assert digest(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in net.modules())
    assert not net.b.weight.requires_grad
    assert torch.equal(net.a.weight.grad, torch.ones_like(net.a.weight))
    assert net.head.weight.grad is None


def test_scores_by_hand(net: Small, graph: ChannelGraph) -> None:
    l2 = rank_channels(net, graph, "l2")["b"]
    squares = net.b.weight.detach().double().square().sum(
        (1, 2, 3)
    ) + net.head.weight.detach().double().square().sum(0)
    assert torch.allclose(l2, squares.sqrt())
    scale = rank_channels(net, graph, "bn_scale")
    assert torch.equal(scale["a"], net.n.weight.detach().abs().double())
    assert torch.equal(scale["b"], l2)  # no batch norm there
    one, two = rank_channels(net, graph, "random"), rank_channels(net, graph, "random", seed=1)
    assert torch.equal(one["a"], rank_channels(net, graph, "random")["a"])
    assert not torch.equal(one["a"], two["a"])


def test_taylor_by_hand(net: Small, graph: ChannelGraph) -> None:
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    score = rank_channels(net, graph, "taylor", [(x, y)])["b"]
    other = copy.deepcopy(net).eval()
    F.cross_entropy(other(x), y).backward()
    parts = [(p * p.grad).abs() for p in (other.b.weight, other.b.bias, other.head.weight)]
    expected = parts[0].sum((1, 2, 3)) + parts[1] + parts[2].sum(0)
    assert torch.allclose(score, expected.detach().double(), rtol=1e-5)


def test_criteria_are_refused_clearly(net: Small, graph: ChannelGraph) -> None:
    with pytest.raises(UsageError, match="calibration batches"):
        rank_channels(net, graph, "taylor")
    with pytest.raises(UsageError, match="unknown importance"):
        rank_channels(net, graph, "l3")


def test_taylor_in_parts_is_that_of_the_whole_batch(net: Small, graph: ChannelGraph) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 4) for n in (7, 4)]
    wanted = taylor.score_units(net, graph, batches)
    seen: list[int] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    each = taylor.activations_of(net.eval(), batches[0][0][:2]).learning
    seen.clear()
    found = taylor.score_units(net, graph, batches, max_bytes=3 * each)
    assert seen == [2, 3, 3, 1, 3, 1]  # the first two tell what an image takes
    for name, scores in wanted.items():
        torch.testing.assert_close(found[name], scores, rtol=1e-4, atol=1e-7)

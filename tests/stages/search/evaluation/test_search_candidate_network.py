"""One network takes the widths of every candidate, as `prune` would cut it."""

from __future__ import annotations

import copy

import pytest
import torch
from search_nets import even_counts, problem, random_counts, trained

from pipeline.training.small_convolutions import (
    DepthwiseSum,
    PointwiseProduct,
    use_small_convolutions,
)
from stages.prune import ChannelPlan, prune
from stages.search.evaluation.candidate_network import CandidateNetwork


def test_resizing_equals_prune_in_any_order_of_candidates() -> None:
    model, graph, splits = trained()
    ready = problem()
    network = CandidateNetwork(model, graph, ready.space.ids)
    x, _ = splits.search.take(16, seed=0)
    for seed in range(4):
        keep = ready.ranking.keep(random_counts(ready, seed))
        with torch.inference_mode():
            expected = prune(model, graph, ChannelPlan(keep)).eval()(x)
            torch.testing.assert_close(
                network.resize(keep).eval()(x), expected, rtol=1e-5, atol=1e-5
            )


def test_resizing_gives_the_same_network_and_leaves_the_original_alone() -> None:
    model, graph, _ = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ready = problem()
    network = CandidateNetwork(model, graph, ready.space.ids)
    small = network.resize(ready.ranking.keep(even_counts(ready)))
    for buffer in small.buffers():
        buffer.zero_()
    assert network.resize({}) is small is network.network
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def one(convolution: torch.nn.Module) -> torch.nn.Module:
    """A copy that computes in the quicker way, if there is one."""
    holder = torch.nn.Sequential(copy.deepcopy(convolution))
    use_small_convolutions(holder)
    return holder[0]


def test_pointwise_convolutions_are_matrix_products_with_equal_results_and_gradients() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(12, 7, 1).double()
    product = one(plain)
    assert type(product) is PointwiseProduct
    x = torch.randn(3, 12, 5, 6, dtype=torch.float64).to(memory_format=torch.channels_last)
    for net in (plain, product):
        net(x).square().sum().backward()
    torch.testing.assert_close(product(x), plain(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product.weight.grad, plain.weight.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "changed",
    [{"stride": 2}, {"groups": 3, "out_channels": 6}, {"padding": 1}, {"kernel_size": 3}],
)
def test_other_dense_convolutions_stay_as_they_are(changed: dict[str, int]) -> None:
    usual = {"in_channels": 12, "out_channels": 7, "kernel_size": 1}
    assert type(one(torch.nn.Conv2d(**usual))) is PointwiseProduct
    assert type(one(torch.nn.Conv2d(**usual | changed))) is torch.nn.Conv2d


def test_the_candidate_network_has_its_own_kinds_of_convolution() -> None:
    network = problem().evaluator.candidate_network.network
    assert {PointwiseProduct, DepthwiseSum} <= {type(module) for module in network.modules()}


@pytest.mark.parametrize(
    ("size", "bias", "stride"),
    [
        ((1, 1), True, 1),
        ((1, 1), False, 2),
        ((2, 2), False, 2),
        ((2, 2), True, 1),
        ((1, 3), True, 1),
    ],
)
def test_depthwise_convolutions_are_sums_on_few_pixels_with_equal_gradients(
    size: tuple[int, int], bias: bool, stride: int
) -> None:
    settings = {
        "kernel_size": (3, 5),
        "padding": (1, 2),
        "stride": stride,
        "groups": 6,
        "bias": bias,
    }
    plain = torch.nn.Conv2d(6, 6, **settings).double()
    summed = one(plain)
    assert type(summed) is DepthwiseSum
    x = torch.randn(4, 6, *size, dtype=torch.float64)
    results = []
    for conv in (plain, summed):
        source = x.clone().requires_grad_()
        out = conv(source)
        (out**2).sum().backward()
        results.append((out, source.grad, *(parameter.grad for parameter in conv.parameters())))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "changed",
    [
        {"padding": 0},
        {"padding": "same"},
        {"kernel_size": 2},
        {"groups": 3},
        {"out_channels": 12},
        {"dilation": 2},
        {"padding_mode": "circular"},
    ],
)
def test_other_depthwise_convolutions_stay_as_they_are(changed: dict[str, object]) -> None:
    usual = {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 6}
    assert type(one(torch.nn.Conv2d(**usual))) is DepthwiseSum
    assert type(one(torch.nn.Conv2d(**usual | changed))) is torch.nn.Conv2d

"""The same function in another basis, wherever that is possible; and nowhere else."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from trunk_nets import (
    CLOSED,
    FREE,
    WIDTH,
    Net,
    bottlenecks,
    images,
    made,
    two_trunks,
    without_norms,
)

import stages.rotate.engine as engine
from pipeline.errors import UsageError
from stages.rotate import Rotation, rotate, rotate_trunks
from stages.trace import trace


def rotated(net: nn.Module, count: int = 32) -> Rotation:
    return rotate_trunks(net, trace(net, images(2)), images(count))


def outputs(net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return copy.deepcopy(net).double()(images().double())


@pytest.mark.parametrize("build", FREE)
def test_a_free_trunk_is_rotated_and_the_function_stays(build: Callable[[], Net]) -> None:
    net = made(build)
    before = copy.deepcopy(net.state_dict())
    found = rotated(net)
    assert "trunk" in [group.id for group in found.groups]
    assert 0 < found.difference < 1e-12
    assert not torch.allclose(found.model.trunk.weight, net.trunk.weight, atol=0.01)
    # its float32 weights are rounded ones
    assert torch.allclose(outputs(found.model), outputs(net), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("build", CLOSED)
def test_where_a_channel_is_looked_at_alone_it_stays(build: Callable[[], Net]) -> None:
    net = made(build)
    graph = trace(net, images(2))
    found = rotate_trunks(net, graph, images())
    assert "trunk" not in [group.id for group in found.groups]
    if graph["trunk"].prunable:
        assert found.left["trunk"]
    assert torch.equal(found.model.trunk.weight, net.trunk.weight)


def test_every_prunable_group_is_rotated_or_has_a_reason() -> None:
    net = made(bottlenecks)
    graph = trace(net, images(2))
    found = rotate_trunks(net, graph, images())
    rotated_ids = {group.id for group in found.groups}
    assert rotated_ids == {"trunk"}
    assert rotated_ids ^ found.left.keys() == {group.id for group in graph.prunable}
    assert found.left["expand"].endswith("does not treat its channels alike")


def test_both_trunks_of_a_layer_between_them_are_rotated() -> None:
    assert [group.id for group in rotated(made(two_trunks)).groups] == ["trunk", "between"]


def covariance(net: Net) -> torch.Tensor:
    """Of what the reader of `without_norms` sees; (6, 6)."""
    with torch.no_grad():
        values = net.trunk(images()) + 0.5 * net.other(images())
    pooled = torch.nn.functional.pad(torch.nn.functional.avg_pool2d(values, 2), (1, 0, 0, 1))
    return torch.cov(pooled.movedim(1, 0).flatten(1).double(), correction=0)


def test_components_are_uncorrelated_and_come_in_order_of_variance() -> None:
    net = made(without_norms)
    found = rotated(net)
    spread = covariance(found.model)
    variance = torch.tensor(found.groups[0].variance, dtype=torch.float64)
    assert torch.allclose(spread / spread.trace(), variance.diag(), atol=1e-6)
    assert torch.equal(variance.sort(descending=True)[0], variance)


def missed(spread: torch.Tensor, keep: tuple[int, ...]) -> float:
    """Variance of the other units that a regression on `keep` leaves unexplained."""
    gone = [unit for unit in range(WIDTH) if unit not in keep]
    across = spread[list(keep)][:, gone]
    explained = across.mT @ torch.linalg.solve(spread[list(keep)][:, list(keep)], across)
    return float((spread[gone][:, gone] - explained).trace())


def test_last_components_are_missed_less_than_any_channels() -> None:
    net = made(without_norms)
    before, after = covariance(net), covariance(rotate(net, trace(net, images(2)), images()))
    choices = list(itertools.combinations(range(WIDTH), WIDTH // 2))
    assert missed(after, choices[0]) < 0.9 * min(missed(before, keep) for keep in choices)


def test_statistics_of_the_new_norm_are_those_of_what_it_sees() -> None:
    """So a step of training normalises as eval mode does."""
    net = made(bottlenecks)
    net.n.momentum = None  # statistics are means over all batches
    net.n.reset_running_stats()
    with torch.no_grad():
        net.train()(images(256))
    found = rotate_trunks(net.eval(), trace(net, images(2)), images(256)).model
    with torch.no_grad():
        seen = found.trunk(images(256))
    assert torch.allclose(seen.mean((0, 2, 3)), found.n.running_mean, atol=1e-4)
    assert torch.allclose(seen.var((0, 2, 3)), found.n.running_var, rtol=1e-3, atol=1e-5)
    lengths = found.trunk.weight.flatten(1).norm(dim=1)
    assert torch.allclose(lengths, lengths[0].expand(WIDTH), rtol=1e-4)


def test_a_trunk_that_breaks_the_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was overlooked: here, that one of two readers has to follow."""
    real = engine.read_in

    def broken(basis: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return weight.double() if weight.shape[1] == 7 else real(basis, weight)

    monkeypatch.setattr(engine, "read_in", broken)
    found = rotated(made(two_trunks))
    assert [group.id for group in found.groups] == ["trunk"]
    assert "outputs would differ by" in found.left["between"]
    assert found.difference < 1e-12


def test_half_precision_is_left_alone() -> None:
    net = made(bottlenecks)
    graph = trace(net, images(2))
    found = rotate_trunks(net.bfloat16(), graph, images().bfloat16())
    assert found.groups == ()
    assert found.left["trunk"] == "half precision is too coarse for it"


def test_dead_and_infinite_channels() -> None:
    net = made(bottlenecks)
    with torch.no_grad():
        net.trunk.weight[1:3] = 0
        net.n.bias[1:3] = 0
        net.n.running_mean[1:3] = 0
    found = rotated(net)
    assert found.difference < 1e-12
    assert torch.allclose(outputs(found.model), outputs(net), rtol=1e-4, atol=1e-5)
    net.trunk.weight.data[0] = float("inf")
    assert rotated(net).left["trunk"] == "its values are not finite"


def test_a_network_that_float64_stops_is_left_alone() -> None:
    net = made(bottlenecks)
    run = net.run
    net.run = lambda net, x: (
        run(net, x)
        + torch.zeros(1, dtype=torch.float32).addmm(
            torch.ones(1, 1, dtype=x.dtype), torch.zeros(1, 1)
        )
    )
    found = rotated(net)
    assert found.left["trunk"] == "the network does not run in float64"


def test_modes_and_gradients_stay() -> None:
    net = made(bottlenecks).train()
    net.last.weight.requires_grad_(False)
    found = rotated(net).model
    assert found.training
    assert net.training
    assert not found.last.weight.requires_grad
    assert found.trunk.weight.requires_grad


def test_too_few_images() -> None:
    net = made(bottlenecks)
    with pytest.raises(UsageError, match="at least 8 images, got 4"):
        rotated(net, 4)

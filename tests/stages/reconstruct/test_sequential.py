"""The sequential form: means follow, branches make up for each other, and nothing else changes."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import ArtifactError
from stages.prune import ChannelPlan, prune
from stages.reconstruct import Reconstruction, reconstruct, reconstruct_layers
from stages.trace import ChannelGraph, trace
from tests.stages.reconstruct.twin_nets import Net, copied, norm


class Residual(nn.Module):
    """A stem, two residual blocks and a head: batch norms, a depthwise layer, a trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n0 = nn.Conv2d(3, 12, 3, padding=1, bias=False), norm(12)
        self.a, self.n1 = nn.Conv2d(12, 24, 1, bias=False), norm(24)
        self.d, self.n2 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), norm(24)
        self.b, self.n3 = nn.Conv2d(24, 12, 1, bias=False), norm(12)
        self.c, self.n4 = nn.Conv2d(12, 12, 3, padding=1, bias=False), norm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu(self.n0(self.stem(x)))
        x = x + self.n3(self.b(F.relu6(self.n2(self.d(F.relu6(self.n1(self.a(x))))))))
        x = F.relu(x + self.n4(self.c(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net() -> Residual:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(1)
    return F.avg_pool2d(torch.randn(96, 3, 20, 20), 3, 1)


@pytest.fixture
def graph(net: Residual, x: torch.Tensor) -> ChannelGraph:
    return trace(net, x[:1])


def halved(net: nn.Module, graph: ChannelGraph) -> tuple[nn.Module, ChannelPlan]:
    plan = ChannelPlan.uniform(graph, 0.4)
    return prune(net, graph, plan), plan


def digest(net: nn.Module) -> str:
    whole = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        whole.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


def distance(one: nn.Module, other: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float(F.mse_loss(one(x), other(x)))


def by_name(done: Reconstruction) -> dict[str, tuple[float | None, float | None]]:
    return {layer.name: (layer.error_before, layer.error_after) for layer in done.layers}


def test_outputs_come_nearer_and_no_layer_gets_worse(net, graph, x) -> None:
    small, plan = halved(net, graph)
    done = reconstruct_layers(small, net, graph, plan, x)
    fresh = F.avg_pool2d(torch.randn(96, 3, 20, 20), 3, 1)
    assert distance(done.model, net, fresh) < 0.2 * distance(small, net, fresh)
    assert list(by_name(done)) == ["stem", "a", "d", "b", "c", "head"]
    assert all(after <= before for before, after in by_name(done).values())
    assert by_name(done)["b"][1] < by_name(done)["b"][0]


def mean_of(model: nn.Module, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Mean of what a layer gives when it is first applied, a channel."""
    seen = []
    hook = layer.register_forward_hook(lambda _, __, out: seen.append(out.mean((0, 2, 3))))
    with torch.no_grad():
        model(x)
    hook.remove()
    return seen[0]


def test_means_follow_and_variances_stay(net, graph, x) -> None:
    """What a batch norm gives has the original's mean, wherever no branch makes up for another."""
    small, plan = halved(net, graph)
    done = reconstruct(small, net, graph, plan, x)
    kept = list(plan.keep["a"])
    for name in ("n1", "n2"):
        found, wanted = (mean_of(model, getattr(model, name), x) for model in (done, net))
        torch.testing.assert_close(found, wanted[kept], atol=1e-4, rtol=0)
    for name, buffer in done.named_buffers():
        if "running_var" in name:
            assert torch.equal(buffer, dict(small.named_buffers())[name])


def test_what_lies_between_two_applications_follows_the_final_weight() -> None:
    """`n` was first fitted to what `s` gave before its second application was known."""
    torch.manual_seed(0)
    net = Net(
        lambda x, a, s, n, b: b(F.relu(s(F.relu(n(s(F.relu(a(x)))))))).flatten(1),
        a=nn.Conv2d(3, 12, 3),
        s=nn.Conv2d(12, 12, 3, bias=False),
        n=norm(12),
        b=nn.Conv2d(12, 4, 1),
    ).eval()
    x = torch.randn(64, 3, 11, 11)
    graph, plan = trace(net, x[:1]), ChannelPlan({"layers.a": tuple(range(7))})
    done = reconstruct(prune(net, graph, plan), net, graph, plan, x)
    found, wanted = (mean_of(model, model.layers["n"], x) for model in (done, net))
    torch.testing.assert_close(found, wanted[:7], atol=1e-4, rtol=0)


def test_nothing_changes_where_nothing_was_cut(net, graph, x) -> None:
    done = reconstruct_layers(copy.deepcopy(net), net, graph, ChannelPlan({}), x)
    assert digest(done.model) == digest(net)
    assert {layer.reason for layer in done.layers} == {"it gives what the original gives"}


def test_its_inputs_are_left_alone(net, graph, x) -> None:
    small, plan = halved(net, graph)
    small.train().requires_grad_(False)
    before, images = (digest(net), digest(small)), x.clone()
    done = reconstruct(small, net, graph, plan, x)
    assert (digest(net), digest(small)) == before
    assert torch.equal(x, images)
    assert done.training
    assert not net.training
    assert not any(parameter.requires_grad for parameter in done.parameters())
    assert digest(done) != before[1]


def test_same_seed_same_bytes_another_seed_other_positions(net, graph, x) -> None:
    small, plan = halved(net, graph)
    big = F.interpolate(x, scale_factor=3)
    first, again, other = (
        digest(reconstruct(small, net, graph, plan, big, seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert other != first


def test_half_precision_networks_stay_so(net, graph, x) -> None:
    small, plan = halved(net, graph)
    done = reconstruct(small.bfloat16(), copy.deepcopy(net).bfloat16(), graph, plan, x)
    assert {tensor.dtype for tensor in done.state_dict().values()} == {torch.bfloat16, torch.int64}
    assert distance(done.float(), net, x) < 0.3 * distance(small.float(), net, x)


def test_a_branch_makes_up_for_what_the_other_has_lost() -> None:
    """`k` is `a` before the cut: with it `e` can give back what `s` has lost, so the sum is exact
    although `s` is not.
    """
    torch.manual_seed(0)
    a = nn.Conv2d(3, 8, 3)
    net = Net(
        lambda x, a, s, k, e: (s(F.relu(a(x))) + e(F.relu(k(x)))).flatten(1),
        a=a,
        s=nn.Conv2d(8, 4, 1),
        k=copy.deepcopy(a),
        e=nn.Conv2d(8, 4, 1),
    ).double()
    x = torch.randn(64, 3, 7, 7).double()
    graph, plan = trace(net, x[:1]), ChannelPlan({"layers.a": (0, 1, 2)})
    done = reconstruct_layers(prune(net, graph, plan), net, graph, plan, x)
    assert by_name(done)["layers.s"][1] > 1e-2
    assert by_name(done)["layers.e"][1] < 1e-10
    assert distance(done.model, net, torch.randn_like(x)) < 1e-12


def test_a_branch_makes_up_through_its_batch_norm() -> None:
    torch.manual_seed(0)
    a = nn.Conv2d(3, 8, 3)
    net = Net(
        lambda x, a, s, k, e, n: (s(F.relu(a(x))) + n(e(F.relu(k(x))))).flatten(1),
        a=a,
        s=nn.Conv2d(8, 4, 1, bias=False),
        k=copy.deepcopy(a),
        e=nn.Conv2d(8, 4, 1, bias=False),
        n=norm(4),
    )
    net.double().eval()
    x = torch.randn(64, 3, 7, 7).double()
    graph, plan = trace(net, x[:1]), ChannelPlan({"layers.a": (0, 1, 2)})
    done = reconstruct_layers(prune(net, graph, plan), net, graph, plan, x)
    assert by_name(done)["layers.s"][1] > 1e-2
    assert distance(done.model, net, torch.randn_like(x)) < 1e-12


def test_the_later_branch_makes_up_even_if_it_is_named_first() -> None:
    """Execution order decides: a shortcut that runs after the branch sees what the branch lost."""
    torch.manual_seed(0)

    def run(x, a, s, e):
        branch = s(F.relu(a(x)))
        return (e(x) + branch).flatten(1)

    net = Net(run, e=nn.Conv2d(3, 4, 3), a=nn.Conv2d(3, 8, 3), s=nn.Conv2d(8, 4, 1)).double()
    x = torch.randn(64, 3, 7, 7).double()
    graph, plan = trace(net, x[:1]), ChannelPlan({"layers.a": (0, 1, 2)})
    done = reconstruct_layers(prune(net, graph, plan), net, graph, plan, x)
    before, after = by_name(done)["layers.e"]
    assert 0 < after < before


def test_linear_with_more_unknowns_than_rows_is_fitted_by_rows() -> None:
    torch.manual_seed(0)
    net = Net(lambda x, a, b: b(a(x)), a=copied(nn.Linear(6, 400)), b=nn.Linear(400, 3)).double()
    x = torch.randn(64, 6).double()
    graph, plan = trace(net, x[:1]), ChannelPlan({"layers.a": tuple(range(0, 400, 2))})
    small = prune(net, graph, plan)
    fresh = torch.randn_like(x)
    done = reconstruct(small, net, graph, plan, x)
    assert distance(done, net, fresh) < 1e-8 * distance(small, net, fresh)


def test_progress_counts_to_its_end(net, graph, x) -> None:
    small, plan = halved(net, graph)
    seen: list[tuple[int, int]] = []
    reconstruct_layers(
        small, net, graph, plan, x, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(step, 11) for step in range(1, 12)]


def test_a_network_of_another_plan_is_refused(net, graph, x) -> None:
    small, plan = halved(net, graph)
    other = ChannelPlan({**plan.keep, "a": (0, 1)})
    with pytest.raises(ArtifactError, match=r"a\.weight"):
        reconstruct(small, net, graph, other, x)

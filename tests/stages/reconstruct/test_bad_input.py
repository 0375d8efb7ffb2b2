"""What cannot be fitted is left alone with its reason, or refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import UsageError
from stages.prune import ChannelPlan, prune
from stages.reconstruct import Moments, Reconstruction, reconstruct, reconstruct_layers
from stages.reconstruct.engine import TooLittleMemory
from stages.reconstruct.forward import survey
from stages.reconstruct.least_squares import System, fit
from stages.reconstruct.patches import Sampling
from stages.reconstruct.targets import Targets
from stages.trace import trace
from tests.stages.reconstruct.twin_nets import Net


def done_on(net: nn.Module, keep: dict[str, tuple[int, ...]], x: torch.Tensor) -> Reconstruction:
    graph, plan = trace(net, torch.randn_like(x[:1])), ChannelPlan(keep)
    return reconstruct_layers(prune(net, graph, plan), net, graph, plan, x)


def reasons(done: Reconstruction) -> dict[str, str]:
    return {layer.name: layer.reason for layer in done.layers if layer.kept}


def chain() -> Net:
    torch.manual_seed(0)
    return Net(
        lambda x, a, b, c: c(F.relu(b(F.relu(a(x))))).flatten(1),
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(8, 8, 3),
        c=nn.Conv2d(8, 4, 1),
    )


HALF = {"layers.a": (0, 1, 2, 3)}
IMAGES = (64, 3, 9, 9)


def test_too_few_images() -> None:
    net = chain()
    with pytest.raises(UsageError, match="at least 8 images, got 7"):
        done_on(net, HALF, torch.randn(7, 3, 9, 9))
    assert done_on(net, HALF, torch.randn(8, 3, 9, 9)).images == 8


def test_dead_channels() -> None:
    """Zero variance: of some inputs it is no matter, of all inputs there is nothing to fit."""
    net = chain()
    with torch.no_grad():
        net.layers["a"].weight[:2] = 0
        net.layers["a"].bias[:2] = -1
    done = done_on(net, HALF, torch.randn(IMAGES))
    assert all(bool(p.isfinite().all()) for p in done.model.parameters())
    assert "layers.b" not in reasons(done)
    with torch.no_grad():
        net.layers["a"].weight[:4] = 0
        net.layers["a"].bias[:4] = -1
    done = done_on(net, HALF, torch.randn(IMAGES))
    assert reasons(done)["layers.b"] == "its held-out error does not fall by other weights"


def test_a_layer_that_gives_a_constant() -> None:
    net = chain()
    with torch.no_grad():
        net.layers["b"].weight.zero_()
    done = done_on(net, HALF, torch.randn(IMAGES))
    assert set(reasons(done)) == {"layers.a", "layers.b", "layers.c"}


def test_activations_that_are_no_numbers() -> None:
    net = chain()
    with torch.no_grad():
        net.layers["a"].weight[6] = torch.nan
    done = done_on(net, HALF, torch.randn(IMAGES))
    assert reasons(done)["layers.b"] == "what it sees, or should give, is not finite"
    assert all(bool(p.isfinite().all()) for p in done.model.parameters())


def test_images_that_are_no_numbers() -> None:
    done = done_on(chain(), HALF, torch.full(IMAGES, torch.inf))
    assert set(reasons(done)) == {"layers.a", "layers.b", "layers.c"}


def test_squares_beyond_float32() -> None:
    """Activations of 1e25: their squares are not finite in float32, float64 bears them."""
    net = chain()
    with torch.no_grad():
        net.layers["a"].weight *= 1e25
        net.layers["b"].weight *= 1e-25
    done = done_on(net, HALF, torch.randn(IMAGES))
    assert all(bool(p.isfinite().all()) for p in done.model.parameters())
    layer = next(layer for layer in done.layers if layer.name == "layers.b")
    assert layer.error_after <= layer.error_before


def test_float64_where_float32_fails() -> None:
    """Two equal columns, and a ridge that is lost when float32 adds it to them."""
    found = System(torch.ones(1, 2, 2), torch.ones(1, 2, 1)).solve(1e-9)
    torch.testing.assert_close(found, torch.full((1, 2, 1), 0.5))
    hopeless = System(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), torch.ones(1, 2, 1)).solve(0.0)
    assert bool(hopeless.isnan().all())


def test_weights_that_help_nobody_stay() -> None:
    """What was removed has nothing in common with what is left."""
    torch.manual_seed(0)
    x, gone = torch.randn(1, 60, 20), torch.randn(1, 60, 1)
    matrix = torch.randn(1, 1, 20)
    found = fit(x.clone(), x @ matrix.mT + 5 * gone, matrix, 15, free_mean=False)
    assert found.matrix is matrix
    assert found.before == found.after
    assert found.reason == "its held-out error does not fall"


def test_a_layer_that_is_never_reached() -> None:
    net = chain()
    net.layers["spare"] = nn.Conv2d(3, 3, 1)
    net.run = lambda x, a, b, c, spare: c(F.relu(b(F.relu(a(x))))).flatten(1)
    done = done_on(net, HALF, torch.randn(IMAGES))
    assert reasons(done)["layers.spare"] == "it is never reached"
    assert "layers.b" not in reasons(done)


def test_attention_is_left_alone() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda x, m, a, b: b(F.gelu(a(m(x, x, x)[0]))).flatten(1),
        m=nn.MultiheadAttention(8, 2, batch_first=True),
        a=nn.Linear(8, 16),
        b=nn.Linear(16, 4),
    )
    done = done_on(net, {"layers.a": tuple(range(8))}, torch.randn(32, 5, 8))
    why = reasons(done)
    expected = "it is applied by multi_head_attention_forward, which is not refitted"
    assert why["layers.m.in_proj_weight"] == why["layers.m.out_proj"] == expected
    assert "layers.b" not in why


def test_a_weight_with_another_user_stays() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda x, a, b, c: c(F.relu(b(F.relu(a(x))))).flatten(1) + c.weight.sum(),
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(8, 8, 1),
        c=nn.Conv2d(8, 4, 1),
    )
    done = done_on(net, HALF, torch.randn(IMAGES))
    assert list(reasons(done).items()) == [
        ("layers.a", "it gives what the original gives"),
        ("layers.c", "sum uses its weight as well"),
    ]


def test_behind_an_opened_layer_norm() -> None:
    """The cut changes its statistics: the sequential form sees that, moments do not."""
    torch.manual_seed(0)
    net = Net(
        lambda x, a, n, b: b(n(a(x))),
        a=nn.Linear(6, 16),
        n=nn.LayerNorm(16),
        b=nn.Linear(16, 4),
    )
    x = torch.randn(256, 6)
    graph = trace(net, x[:1], open_statistics=True)
    plan = ChannelPlan({"layers.a": tuple(range(12))})
    small = prune(net, graph, plan)
    done = reconstruct_layers(small, net, graph, plan, x)
    assert [layer.name for layer in done.layers if not layer.kept] == ["layers.b"]
    moments = Moments(net, graph, x)
    assert moments.left_alone == {
        "layers.b.weight": "it stands behind a norm over the channels that are cut"
    }
    tensors = moments.tensors_after(plan.keep)
    assert torch.equal(tensors["layers.b.weight"], small.layers["b"].weight)


def test_more_images_than_memory_are_not_all_used() -> None:
    net = chain()
    graph, plan = trace(net, torch.randn(1, 3, 40, 40)), ChannelPlan(HALF)
    small, x = prune(net, graph, plan), torch.randn(64, 3, 40, 40)
    done = reconstruct_layers(small, net, graph, plan, x, max_bytes=12 << 20)
    assert 8 <= done.images < 64
    assert any(not layer.kept for layer in done.layers)
    with pytest.raises(TooLittleMemory, match=r"needs \d+ MiB at least, 1 MiB are allowed") as none:
        reconstruct(small, net, graph, plan, x, max_bytes=1 << 20)
    enough = reconstruct_layers(small, net, graph, plan, x, max_bytes=none.value.needed)
    assert 8 <= enough.images < done.images


def test_weights_that_hooks_compute_are_left_alone() -> None:
    net = chain()
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(net.layers["a"])
    graph, plan, x = trace(net, torch.randn(1, 3, 9, 9)), ChannelPlan(HALF), torch.randn(IMAGES)
    small = prune(net, graph, plan)
    small(x)  # the hook leaves a weight there that deepcopy refuses
    done = reconstruct_layers(small, net, graph, plan, x)
    assert "layers.a.weight_v" in reasons(done)
    assert not next(layer for layer in done.layers if layer.name == "layers.b").kept
    assert done.model(x).shape == net(x).shape


def test_targets_are_the_same_in_windows_of_any_size() -> None:
    net, x = chain(), torch.randn(IMAGES)
    forward = survey(net, (x[:2],))
    sizes = {}
    for room in (1, 1 << 30):
        targets = Targets(net, (x,), forward, {}, Sampling(len(x)), room)
        sizes[room] = [targets.of(use).rows for use in forward.uses], targets.runs
    assert sizes[1][1] == 3
    assert sizes[1 << 30][1] == 1
    assert all(map(torch.equal, sizes[1][0], sizes[1 << 30][0]))


def test_memory_is_bounded() -> None:
    """256 images whose largest activations take 800 MB each, in a process of its own."""
    script = Path(__file__).with_name("peak_memory.py")
    command = [sys.executable, str(script), "256"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 256

"""Products of activations: channels that are left over pass, channels that are summed over are tied
where a removed one contributes nothing, and everything else stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_costs import assert_exact
from test_never_wrong import Net, assert_never_wrong, weight
from torch import nn
from torch.nn import functional as F

from stages.trace import trace

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")

WIDTH, EDGE = 16, 8
Form = Callable[[Any, torch.Tensor], torch.Tensor]


def conv(out: int, into: int = WIDTH, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(into, out, 1, **options)


def tokens(y: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, H · W, C)."""
    return y.flatten(2).transpose(1, 2)


def image(z: torch.Tensor) -> torch.Tensor:
    """Inverse of `tokens`."""
    return z.transpose(1, 2).unflatten(2, (EDGE, EDGE))


def heads(y: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, 4, H · W, C / 4)."""
    return y.flatten(2).unflatten(1, (4, -1)).transpose(2, 3)


def joined(z: torch.Tensor) -> torch.Tensor:
    return z.transpose(2, 3).flatten(1, 2).unflatten(2, (EDGE, EDGE))


def qkv(**options: Any) -> dict[str, nn.Conv2d]:
    return {name: conv(WIDTH, **options) for name in "qkv"}


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-2, -1) * 0.25).softmax(-1)


def global_context(m: Any, y: torch.Tensor) -> torch.Tensor:
    shares = m.k(y).flatten(2).softmax(-1).unsqueeze(-1)
    return y + (y.flatten(2).unsqueeze(1) @ shares).transpose(1, 2)


def own_attention(m: Any, y: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(c(y)) for c in (m.q, m.k, m.v))
    return joined(scores(q, k) @ v)


def channel_attention(m: Any, y: torch.Tensor) -> torch.Tensor:
    q, k, v = (c(y).flatten(2) for c in (m.q, m.k, m.v))
    return (scores(q, k) @ v).unflatten(2, (EDGE, EDGE))


def torch_attention(**options: Any) -> Form:
    def form(m: Any, y: torch.Tensor) -> torch.Tensor:
        q, k, v = (heads(c(y)) for c in (m.q, m.k, m.v))
        return joined(F.scaled_dot_product_attention(q, k, v, **options))

    return form


def with_table(m: Any, y: torch.Tensor) -> torch.Tensor:
    q, k, v = (heads(c(y)) for c in (m.q, m.k, m.v))
    return joined(F.scaled_dot_product_attention(q, k, v, attn_mask=m.t))


def einsum(equation: str) -> Form:
    return lambda m, y: torch.einsum(equation, y, m.w)


def halves(m: Any, y: torch.Tensor) -> torch.Tensor:
    """Attention between maps of an own width each."""
    return image((tokens(m.q(y)) @ m.k(y).flatten(2)).softmax(-1) @ tokens(m.v(y)))


# form, prunable groups besides b, groups that stay
PASS: dict[str, tuple[Net, set[str], set[str]]] = {
    "global context": (Net(global_context, k=conv(1)), {"a"}, {"k"}),
    "attention, a convolution's scores": (
        Net(lambda m, y: image(m.s(y).flatten(2).softmax(-1) @ tokens(m.v(y))),
            s=conv(EDGE * EDGE), v=conv(WIDTH)),
        {"a", "v"}, {"s"}),
    "attention, queries and keys are tied": (
        Net(halves, q=conv(8), k=conv(8), v=conv(WIDTH)), {"a", "q", "v"}, set()),
    "attention of heads": (Net(own_attention, **qkv()), {"a", "q", "v"}, set()),
    "attention, bmm": (
        Net(lambda m, y: image(torch.bmm(
            torch.bmm(tokens(m.q(y)), m.k(y).flatten(2)).softmax(-1), tokens(m.v(y)))), **qkv()),
        {"a", "q", "v"}, set()),
    "attention, einsum": (
        Net(lambda m, y: torch.einsum(
            "bnij,bcj->bcni",
            torch.einsum("bcni,bcj->bnij", m.q(y), m.k(y).flatten(2)).softmax(-1),
            m.v(y).flatten(2)), **qkv()),
        {"a", "q", "v"}, set()),
    "attention of channels": (Net(channel_attention, **qkv()), {"a", "q"}, {"k"}),
    "scaled_dot_product_attention": (
        Net(torch_attention(), **qkv()), {"a", "v"}, {"q"}),
    "scaled_dot_product_attention, causal": (
        Net(torch_attention(is_causal=True), **qkv()), {"a", "v"}, {"q"}),
    "scaled_dot_product_attention, scale given": (
        Net(torch_attention(scale=0.3), **qkv()), {"a", "q", "v"}, set()),
    "scaled_dot_product_attention, a table": (
        Net(with_table, t=weight(4, 64, 64), **qkv()), {"a", "v"}, {"q"}),
    "attention to itself": (
        Net(lambda m, y: image((tokens(y) @ y.flatten(2)).softmax(-1) @ tokens(y))), {"a"}, set()),
    "similarity": (
        Net(lambda m, y: y * (tokens(y) @ tokens(y).mean(1, keepdim=True).transpose(1, 2))
            .transpose(1, 2).unflatten(2, (EDGE, EDGE)).tanh()), {"a"}, set()),
    "a matrix by": (
        Net(lambda m, y: (m.w @ y.flatten(2)).unflatten(2, (EDGE, EDGE)), width=12,
            w=weight(12, WIDTH)), {"a", "w"}, set()),
    "a matrix by, over positions": (
        Net(lambda m, y: m.w @ y, w=weight(EDGE, EDGE)), {"a"}, set()),
    "a vector by, over positions": (
        Net(lambda m, y: (m.w @ y).unsqueeze(-1).expand(-1, -1, -1, EDGE), w=weight(EDGE)),
        {"a"}, set()),
    "by a vector": (
        Net(lambda m, y: y + (y.movedim(1, -1) @ m.w).unsqueeze(1), w=weight(WIDTH)), {"a"}, set()),
    "baddbmm": (
        Net(lambda m, y: image(torch.baddbmm(m.w, y.flatten(2).transpose(1, 2), m.s(y).flatten(2)
            .transpose(1, 2)[:, :WIDTH])), w=weight(64, WIDTH), s=conv(WIDTH)), set(), set()),
    "einsum, a scale": (Net(einsum("bchw,c->bchw"), w=weight(WIDTH)), {"a"}, set()),
    "einsum, a layer": (
        Net(einsum("bchw,oc->bohw"), width=12, w=weight(12, WIDTH)), {"a", "w"}, set()),
    "einsum, a layer, implicit": (
        Net(lambda m, y: torch.einsum("zchw,co", y, m.w).permute(3, 1, 0, 2), width=12,
            w=weight(WIDTH, 12)), {"a", "w"}, set()),
    "einsum, a layer with dots": (
        Net(lambda m, y: torch.einsum("...c, oc -> ...o", y.movedim(1, -1), m.w).movedim(-1, 1),
            width=12, w=weight(12, WIDTH)), {"a", "w"}, set()),
    "einsum, over positions": (Net(einsum("bchw,vw->bchv"), w=weight(EDGE, EDGE)), {"a"}, set()),
    "einsum, an outer product": (
        Net(lambda m, y: torch.einsum("bch,bcw->bchw", y.mean(3), y.amax(2))), {"a"}, set()),
    "einsum, of one": (
        Net(lambda m, y: torch.einsum("bchw->bcwh", y) + torch.einsum("bchw->bc", y)[..., None,
            None]), {"a"}, set()),
    "einsum, a sum of one": (
        Net(lambda m, y: y + torch.einsum("bchw->bhw", y).unsqueeze(1)), {"a"}, set()),
    "einsum, heads": (
        Net(lambda m, y: torch.einsum("bgchw,gdc->bgdhw", y.unflatten(1, (4, -1)), m.w).flatten(1,
            2), w=weight(4, 4, 4)), set(), set()),
    "dynamic filters": (
        Net(lambda m, y: torch.einsum("bkhw,bckhw->bchw", m.k(y).softmax(1), F.unfold(y, 3,
            padding=1).unflatten(1, (-1, 9)).unflatten(3, (EDGE, EDGE))), k=conv(9)),
        {"a"}, {"k"}),
}  # fmt: skip

# what is summed over channels and does not vanish with them, or is not known to
STAY: dict[str, tuple[Net, set[str]]] = {
    "shares of queries": (
        Net(lambda m, y: image((tokens(m.q(y)).sigmoid() @ m.k(y).flatten(2).sigmoid()).softmax(-1)
            @ tokens(m.v(y))), **qkv()), {"q"}),
    "a sum of shares": (
        Net(lambda m, y: y + torch.einsum("bchw->bhw", m.q(y).sigmoid()).unsqueeze(1), q=conv(8)),
        {"q"}),
    "shares by a buffer": (
        Net(lambda m, y: y + torch.einsum("bchw,c->bhw", m.q(y).cos(), m.n.running_var)
            .unsqueeze(1), q=conv(8), n=nn.BatchNorm2d(8)), {"q"}),
    "a function of a weight": (
        Net(lambda m, y: y + torch.einsum("bchw,c->bhw", m.q(y).exp(), m.w.exp()).unsqueeze(1),
            q=conv(8), w=weight(8)), {"q"}),
    "written over": (
        Net(lambda m, y: shifted(m.q(y)), q=conv(WIDTH)), {"q"}),
    "scale by width": (
        Net(lambda m, y: image((tokens(m.q(y)) @ m.k(y).flatten(2) * m.q(y).shape[1] ** -0.5)
            .softmax(-1) @ tokens(m.v(y))), **qkv()), {"q"}),
    "softmax of channels": (
        Net(lambda m, y: image((tokens(m.q(y)).softmax(-1) @ m.k(y).flatten(2)).softmax(-1)
            @ tokens(m.v(y))), **qkv()), {"q"}),
    "three of them": (
        Net(lambda m, y: torch.einsum("bchw,bc,bchw->bchw", y, m.q(y).mean((2, 3)), y),
            q=conv(WIDTH)), {"a"}),
    "a diagonal": (
        Net(lambda m, y: y + torch.einsum("bccw->bcw", m.q(y)).mean((1, 2))[:, None, None, None],
            q=conv(EDGE)), {"q"}),
}  # fmt: skip


def shifted(y: torch.Tensor) -> torch.Tensor:
    """What was zero is not, under a name that remembers zeros."""
    z = y.flatten(2)
    y += 1
    return y + z.sum(1).unflatten(1, (EDGE, EDGE)).unsqueeze(1)


@pytest.mark.parametrize("name", PASS)
def test_channels_pass(name: str) -> None:
    net, opens, stays = PASS[name]
    assert_never_wrong(net.eval(), opens=("b", *opens))
    graph = assert_exact(net, torch.randn(1, 3, EDGE, EDGE))
    assert not any(graph[name].prunable for name in stays)


@pytest.mark.parametrize("name", STAY)
def test_channels_that_do_not_vanish_stay(name: str) -> None:
    net, stays = STAY[name]
    assert_never_wrong(net.eval())
    graph = assert_exact(net, torch.randn(1, 3, EDGE, EDGE))
    assert not any(graph[name].prunable for name in stays)


def test_a_unit_of_queries_and_keys_goes_as_one() -> None:
    net, _, _ = PASS["attention, queries and keys are tied"]
    graph = trace(net.eval(), torch.randn(1, 3, EDGE, EDGE))
    assert {member.parameter for member in graph["q"].members} == {
        "q.weight", "q.bias", "k.weight", "k.bias"
    }  # fmt: skip

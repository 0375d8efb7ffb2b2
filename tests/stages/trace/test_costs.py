"""Multiplications counted from a trace are those torch counts, before and after a cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stages.prune import ChannelPlan, CostModel, prune
from stages.trace import ChannelGraph, trace

# switching oneDNN off and on makes torch speak of Intel GPUs
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")

WIDTH, MAP = 16, 8
Forward = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A convolution to 16 channels on a map of 8 × 8, `middle`, a convolution, a head."""

    def __init__(self, middle: Forward, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.middle = middle
        self.first, self.last = nn.Conv2d(3, WIDTH, 3, padding=1), nn.LazyConv2d(24, 3, padding=1)
        self.head = nn.Linear(24, 10)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.middle(self, self.first(x).relu())
        return self.head(self.last(y).relu().mean((2, 3)))


class Buffer(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.rand(shape))


def counted(model: nn.Module, x: torch.Tensor) -> int:
    """By torch, for one sample; its CPU kernel for LSTM, which it cannot see into, switched off."""
    with (
        torch.no_grad(),
        torch.backends.mkldnn.flags(enabled=False),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model(x)
    return counter.get_total_flops() // 2 // len(x)


def assert_exact(model: nn.Module, x: torch.Tensor) -> ChannelGraph:
    """Counts of the whole network and of two cuts are torch's, and rows add up to them."""
    graph = trace(model, x)
    costs = CostModel(graph)
    assert costs.macs() == counted(model, x)
    ragged = {
        group.id: tuple(range(1 + number % group.size))
        for number, group in enumerate(graph.prunable, start=2)
    }
    for plan in (ChannelPlan.uniform(graph, 0.5), ChannelPlan(ragged)):
        kept, small = plan.counts(), prune(model, graph, plan)
        assert costs.macs(kept) == counted(small, x)
        assert costs.params(kept) == sum(p.numel() for p in small.parameters())
        rows = costs.layers(kept)
        assert sum(row.macs for row in rows) == costs.macs(kept)
        assert sum(row.params for row in rows) == costs.params(kept)
        assert len({row.name for row in rows}) == len(rows)
    return graph


def net(middle: Forward, **parts: nn.Module | nn.Parameter) -> Net:
    torch.manual_seed(0)
    model = Net(middle, **parts).eval()
    model(torch.zeros(1, 3, MAP, MAP))
    return model


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(shape))


BUFFERS: dict[str, Net] = {
    "depthwise": net(
        lambda m, y: F.conv2d(y, m.b.kernel, groups=y.shape[1], padding=1), b=Buffer(WIDTH, 1, 3, 3)
    ),
    "dense": net(lambda m, y: F.conv2d(y, m.b.kernel, padding=1), b=Buffer(12, WIDTH, 3, 3)),
    "grouped": net(lambda m, y: F.conv2d(y, m.b.kernel, groups=2), b=Buffer(12, 8, 1, 1)),
    "transposed": net(lambda m, y: F.conv_transpose2d(y, m.b.kernel), b=Buffer(WIDTH, 6, 2, 2)),
    "used twice": net(
        lambda m, y: F.conv2d(y, m.b.kernel) + F.conv2d(y.tanh(), m.b.kernel),
        b=Buffer(12, WIDTH, 1, 1),
    ),
    "linear": net(
        lambda m, y: F.linear(y.movedim(1, -1), m.b.kernel).movedim(-1, 1), b=Buffer(12, WIDTH)
    ),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_weights_that_are_buffers(name: str) -> None:
    model = BUFFERS[name]
    graph = assert_exact(model, torch.randn(1, 3, MAP, MAP))
    assert graph["first"].prunable
    (row,) = [row for row in graph.layers if row.weight == "b.kernel"]
    assert (row.name, row.parameters) == ("b", ())


MIXING: dict[str, Net] = {
    "over columns": net(lambda m, y: m.l(y), l=nn.Linear(MAP, 5)),
    "over rows": net(lambda m, y: m.l(y.transpose(2, 3)).transpose(2, 3), l=nn.Linear(MAP, MAP)),
    "over all positions": net(
        lambda m, y: m.l(y.flatten(2)).unflatten(2, (4, 4)), l=nn.Linear(MAP * MAP, 16, bias=False)
    ),
    "and back over channels": net(
        lambda m, y: m.c(m.l(y).movedim(1, -1)).movedim(-1, 1),
        l=nn.Linear(MAP, MAP), c=nn.Linear(WIDTH, 12),
    ),
    "by a matrix": net(lambda m, y: y @ m.w, w=weight(MAP, 6)),
    "by a convolution of tokens": net(
        lambda m, y: m.c(y.flatten(2).mT).mT.unflatten(2, (MAP, MAP)), c=nn.Conv1d(MAP * MAP, 64, 1)
    ),
    "by a kernel beside the channels": net(
        lambda m, y: m.c(y.movedim(1, 3)).movedim(3, 1),
        c=nn.Conv2d(MAP, MAP, (3, 1), padding=(1, 0), groups=2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_layers_across_positions(name: str) -> None:
    graph = assert_exact(MIXING[name], torch.randn(1, 3, MAP, MAP))
    assert graph["first"].prunable


SLICES: dict[str, Net] = {
    "columns": net(lambda m, y: F.conv2d(y, m.w[:, : y.shape[1]]), w=weight(16, 32, 1, 1)),
    "rows": net(lambda m, y: F.conv2d(y, m.w[:12]), w=weight(20, WIDTH, 1, 1)),
    "rows and columns": net(lambda m, y: F.conv2d(y, m.w[4:, :16]), w=weight(20, 24, 1, 1)),
    "centre of a kernel": net(lambda m, y: F.conv2d(y, m.w[..., 1:2, 1:2]), w=weight(12, 16, 3, 3)),
    "whole and in part": net(
        lambda m, y: torch.cat([F.conv2d(y, m.w), F.conv2d(y, m.w[:6])], 1),
        w=weight(12, WIDTH, 1, 1),
    ),
    "halves": net(
        lambda m, y: torch.cat([F.conv2d(y, w) for w in m.w.chunk(2)], 1), w=weight(20, WIDTH, 1, 1)
    ),
    "transposed": net(lambda m, y: F.conv_transpose2d(y, m.w[:, :5]), w=weight(WIDTH, 8, 2, 2)),
    "linear": net(
        lambda m, y: F.linear(y.movedim(1, -1), m.w[:, :16]).movedim(-1, 1), w=weight(12, 20)
    ),
}


@pytest.mark.parametrize("name", SLICES)
def test_parts_of_a_weight(name: str) -> None:
    assert_exact(SLICES[name], torch.randn(1, 3, MAP, MAP))


def test_the_columns_of_a_slice_follow_the_cut() -> None:
    graph = assert_exact(SLICES["columns"], torch.randn(1, 3, MAP, MAP))
    assert graph["first"].prunable


def sequence(m: Net, y: torch.Tensor) -> torch.Tensor:
    return m.r(y.mean(2).transpose(1, 2))[0].transpose(1, 2).unsqueeze(2)


RECURRENT: dict[str, nn.Module] = {
    "GRU": nn.GRU(WIDTH, 12, batch_first=True),
    "GRU of two layers, both ways": nn.GRU(
        WIDTH, 6, num_layers=2, bidirectional=True, batch_first=True
    ),
    "LSTM": nn.LSTM(WIDTH, 12, batch_first=True),
    "LSTM with a projection": nn.LSTM(WIDTH, 12, proj_size=7, batch_first=True),
    "RNN": nn.RNN(WIDTH, 12, batch_first=True),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str) -> None:
    graph = assert_exact(net(sequence, r=RECURRENT[name]), torch.randn(1, 3, MAP, MAP))
    (row,) = [row for row in CostModel(graph).layers() if row.name == "r"]
    assert row.params == sum(p.numel() for p in RECURRENT[name].parameters())
    assert row.macs > 0


def tokens(y: torch.Tensor) -> torch.Tensor:
    return y.flatten(2).transpose(1, 2)


def heads(m: Net, y: torch.Tensor) -> torch.Tensor:
    q, k, v = (c(y).flatten(2).unflatten(1, (4, -1)).transpose(2, 3) for c in (m.q, m.k, m.v))
    z = F.scaled_dot_product_attention(q, k, v)
    return z.transpose(2, 3).flatten(1, 2).unflatten(2, (MAP, MAP))


def positions(z: torch.Tensor) -> torch.Tensor:
    return z.transpose(1, 2).unflatten(2, (MAP, MAP))


PRODUCTS: dict[str, Net] = {
    "attention": net(
        heads, q=nn.Conv2d(WIDTH, 8, 1), k=nn.Conv2d(WIDTH, 8, 1), v=nn.Conv2d(WIDTH, 16, 1)
    ),
    "scores by channels": net(
        lambda m, y: positions((tokens(y) @ y.flatten(2)).softmax(-1) @ tokens(m.v(y))),
        v=nn.Conv2d(WIDTH, 12, 1),
    ),
    "global context": net(
        lambda m, y: (
            y + (y.flatten(2) @ tokens(m.k(y)).softmax(1)).unsqueeze(-1).expand(-1, -1, 1, 1)
        ),
        k=nn.Conv2d(WIDTH, 1, 1),
    ),
    "by a vector": net(lambda m, y: y + (y.movedim(1, -1) @ m.w).unsqueeze(1), w=weight(WIDTH)),
    "a vector by": net(lambda m, y: (m.w @ y).unsqueeze(2), w=weight(MAP)),
    "a matrix by": net(lambda m, y: (m.w @ y.flatten(2)).unflatten(2, (8, 8)), w=weight(12, WIDTH)),
    "einsum, a layer": net(
        lambda m, y: torch.einsum("bchw,oc->bohw", y, m.w), w=weight(12, WIDTH)
    ),
    "einsum, a scale": net(lambda m, y: torch.einsum("bchw,c->bchw", y, m.w), w=weight(WIDTH)),
    "einsum, summed first": net(
        lambda m, y: torch.einsum("bchw,oc->bo", y, m.w)[..., None, None], w=weight(12, WIDTH)
    ),
    "einsum of three": net(
        lambda m, y: torch.einsum("bchw,cd,do->bohw", y, m.w, m.v),
        w=weight(WIDTH, 5), v=weight(5, 12),
    ),
    "baddbmm": net(
        lambda m, y: torch.baddbmm(m.w, y.flatten(2), tokens(y))[..., None], w=weight(1, 16, 16)
    ),
    "tensordot": net(
        lambda m, y: torch.tensordot(y, m.w, ([1], [0])).movedim(-1, 1), w=weight(WIDTH, 12)
    ),
    "bilinear": net(
        lambda m, y: m.b(y.movedim(1, -1), y.movedim(1, -1)).movedim(-1, 1),
        b=nn.Bilinear(WIDTH, WIDTH, 6),
    ),
    "MultiheadAttention": net(
        lambda m, y: positions(m.a(tokens(y), tokens(y), tokens(y))[0]),
        a=nn.MultiheadAttention(WIDTH, 4, batch_first=True),
    ),
    "MultiheadAttention without weights": net(
        lambda m, y: positions(m.a(tokens(y), tokens(y), tokens(y), need_weights=False)[0]),
        a=nn.MultiheadAttention(WIDTH, 4, batch_first=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_activations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    assert_exact(PRODUCTS[name], torch.randn(1, 3, MAP, MAP))


def test_counts_are_for_one_sample() -> None:
    for model in (BUFFERS["depthwise"], MIXING["over columns"], SLICES["columns"]):
        one = CostModel(trace(model, torch.randn(1, 3, MAP, MAP)))
        three = CostModel(assert_exact(model, torch.randn(3, 3, MAP, MAP)))
        assert one.macs() == three.macs()


def test_a_convolution_of_condensed_experts_counts_its_computed_weight() -> None:
    model = net(
        lambda m, y: F.conv2d(y, (m.w * y.mean().sigmoid()).sum(0)), w=weight(3, 12, WIDTH, 1, 1)
    )  # fmt: skip
    assert_exact(model, torch.randn(1, 3, MAP, MAP))


def test_products_survive_json() -> None:
    graph = trace(MIXING["over columns"], torch.randn(1, 3, MAP, MAP))
    (row,) = [row for row in graph.layers if row.products]
    assert row.products[0].extents[0].follows == (("first", 1),)
    again = ChannelGraph.from_json(graph.to_json())
    assert again.layers == graph.layers
    assert again.to_json() == graph.to_json()


def test_a_graph_written_before_products_is_still_read() -> None:
    graph = trace(PRODUCTS["scores by channels"], torch.randn(1, 3, MAP, MAP))
    document = json.loads(graph.to_json())
    for layer in document["layers"]:
        products = layer.pop("products")
        layer["fixed_macs"] = sum(
            times * prod(n for n, _ in extents) for times, extents in products
        )
    old = ChannelGraph.from_json(json.dumps(document))
    assert CostModel(old).macs() == CostModel(graph).macs()

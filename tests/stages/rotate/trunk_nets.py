"""Small networks with a trunk of 6 channels, group "trunk", whose basis is free, or is not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from channel_nets import used_norm
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 6


class Net(nn.Module):
    """A forward of named layers."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def norm(channels: int = WIDTH) -> nn.BatchNorm2d:
    """A batch norm in use."""
    return used_norm(channels)


def conv(into: int, out: int, kernel: int = 3, **settings: object) -> nn.Conv2d:
    """With padding that keeps the size of the map."""
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, **settings)  # type: ignore[arg-type]


def _layers(**more: nn.Module) -> dict[str, nn.Module]:
    return {"trunk": conv(3, WIDTH, bias=False), "n": norm(), "head": nn.Linear(5, 4), **more}


def _head(net: Net, x: Tensor) -> Tensor:
    return net.head(F.relu(x).mean((2, 3)))


def bottlenecks() -> Net:
    """An inverted residual: the trunk is written twice, and read twice."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.n(net.trunk(x))
        inside = F.relu6(net.d(F.relu6(net.m(net.expand(x)))))
        x = x + F.dropout(net.k(net.project(inside)), 0.2, training=net.training)
        return _head(net, net.last(x))

    more = {"expand": conv(WIDTH, 8, 1, bias=False), "m": norm(8), "d": conv(8, 8, groups=8)}
    more |= {"project": conv(8, WIDTH, 1), "k": norm(), "last": conv(WIDTH, 5)}
    return Net(run, **_layers(**more))


def classified_directly() -> Net:
    """The mean of the trunk goes into the classifier."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(net.n(net.trunk(x)), 1)
        return net.head(torch.flatten(x, 1))

    return Net(run, **_layers(head=nn.Linear(WIDTH, 4)))


def without_norms() -> Net:
    """Biases, a pooled and padded reader, a scaled sum."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.trunk(x) + 0.5 * net.other(x)
        return _head(net, net.last(F.pad(F.avg_pool2d(x, 2), (1, 0, 0, 1))))

    layers = {"trunk": conv(3, WIDTH), "other": conv(3, WIDTH, 1), "last": conv(WIDTH, 5)}
    return Net(run, **layers, head=nn.Linear(5, 4))


def tokens() -> Net:
    """Linear layers, channels last."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = net.trunk(x.flatten(2).permute(0, 2, 1))
        x = x + net.project(F.gelu(net.expand(x)))
        return net.head(F.relu(net.last(x)).mean(1))

    layers = {"trunk": nn.Linear(3, WIDTH), "expand": nn.Linear(WIDTH, 8)}
    layers |= {"project": nn.Linear(8, WIDTH), "last": nn.Linear(WIDTH, 5)}
    return Net(run, **layers, head=nn.Linear(5, 4))


def two_trunks() -> Net:
    """One layer reads a trunk and writes the next."""

    def run(net: Net, x: Tensor) -> Tensor:
        return _head(net, net.last(net.k(net.between(net.n(net.trunk(x))))))

    return Net(run, **_layers(between=conv(WIDTH, 7, bias=False), k=norm(7), last=conv(7, 5)))


FREE = (bottlenecks, classified_directly, without_norms, tokens, two_trunks)


def _read_by(run: Callable[[Net, Tensor], Tensor], **more: nn.Module) -> Net:
    def whole(net: Net, x: Tensor) -> Tensor:
        return _head(net, net.last(run(net, net.n(net.trunk(x)))))

    return Net(whole, **_layers(**{"last": conv(WIDTH, 5), **more}))


def relu_on_it() -> Net:
    return _read_by(lambda net, x: F.relu(x))


def relu_on_the_sum() -> Net:
    """As in ResNet."""
    return _read_by(lambda net, x: F.relu(x + net.b(F.relu(net.a(x)))), a=conv(6, 6), b=conv(6, 6))


def concatenated() -> Net:
    return _read_by(lambda net, x: torch.cat([x, x.sigmoid()], 1), last=conv(2 * WIDTH, 5))


def depthwise_reads_it() -> Net:
    return _read_by(lambda net, x: net.d(x), d=conv(WIDTH, WIDTH, groups=WIDTH))


def grouped_reads_it() -> Net:
    return _read_by(lambda net, x: net.d(x), d=conv(WIDTH, WIDTH, groups=2))


def gated() -> Net:
    return _read_by(lambda net, x: x * net.a(x).sigmoid(), a=conv(6, 6, 1))


def group_norm() -> Net:
    return _read_by(lambda net, x: net.g(x), g=nn.GroupNorm(WIDTH, WIDTH))


def second_norm() -> Net:
    """As in DenseNet: a batch norm that is not right behind a layer."""
    return _read_by(lambda net, x: net.a(net.k(x + net.a(x))), a=conv(6, 6), k=norm())


def second_norm_on_it() -> Net:
    return _read_by(lambda net, x: net.k(x), k=norm())


def max_pooled() -> Net:
    return _read_by(lambda net, x: F.max_pool2d(x, 2))


def applied_twice() -> Net:
    """One weight reads the trunk, and what it made of it."""
    return _read_by(lambda net, x: x + net.a(net.a(x)), a=conv(WIDTH, WIDTH))


def constant_added() -> Net:
    return _read_by(lambda net, x: x + 1)


def parameter_added() -> Net:
    net = _read_by(lambda net, x: x + net.shift)
    net.shift = nn.Parameter(torch.randn(1, WIDTH, 1, 1))
    return net


def shuffled() -> Net:
    return _read_by(lambda net, x: x.view(len(x), 2, 3, 8, 8).transpose(1, 2).flatten(1, 2))


def some_of_it() -> Net:
    return _read_by(lambda net, x: x + net.a(x[:, 1:]), a=conv(WIDTH - 1, WIDTH))


def also_read_in_training() -> Net:
    """An auxiliary head that eval mode does not run."""

    def run(net: Net, x: Tensor) -> Tensor:
        return x + net.aux(x).mean() if net.training else x

    return _read_by(run, aux=conv(WIDTH, 2, 1))


def flattened_map() -> Net:
    """Each unit is many inputs of the linear layer."""

    def run(net: Net, x: Tensor) -> Tensor:
        return net.head(net.n(net.trunk(x)).flatten(1))

    return Net(run, **_layers(head=nn.Linear(WIDTH * 64, 4)))


def computed_weight() -> Net:
    net = _read_by(lambda net, x: x)
    net.last = nn.utils.parametrizations.weight_norm(net.last)
    return net


CLOSED = (
    relu_on_it, relu_on_the_sum, concatenated, depthwise_reads_it, grouped_reads_it, gated,
    group_norm, second_norm, second_norm_on_it, max_pooled, applied_twice, constant_added,
    parameter_added, shuffled, some_of_it, also_read_in_training, flattened_map, computed_weight,
)  # fmt: skip


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """In eval mode, the same every time."""
    torch.manual_seed(0)
    return build().eval()


def images(count: int = 32) -> Tensor:
    """(count, 3, 8, 8)."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))

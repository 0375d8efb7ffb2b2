"""Networks in which every second channel is a copy of the one before: cut it, and what it carried
is still there, so exact weights exist for everything behind.

    x ── a ──▶ channels 0 0' 1 1' 2 2' …  ── consumer ──▶ …

`Case.keep` are the units that stay, by group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from channel_nets import used_norm as norm
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 8
STAY = tuple(range(0, WIDTH, 2))


def copied(layer: nn.Module, dim: int = 0) -> nn.Module:
    """Every second slice of the layer's weight along `dim`, and its bias, copied from the one
    before.
    """
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            along = dim if name == "weight" else 0
            if tensor.dim() and tensor.shape[along] % 2 == 0:
                even = torch.arange(0, tensor.shape[along], 2)
                values = tensor.index_select(along, even)
                tensor.index_copy_(along, even + 1, values)
    return layer


class Net(nn.Module):
    """A forward of named layers."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, **self.layers)


@dataclass(frozen=True)
class Case:
    """A network, inputs, and units that stay; `layers` are those whose inputs lose channels."""

    net: nn.Module
    x: Tensor
    keep: dict[str, tuple[int, ...]]
    layers: tuple[str, ...]


def _conv(into: int = 3, out: int = WIDTH, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1, **settings)  # type: ignore[arg-type]


def _chain(consumer: nn.Module, x: Tensor, producer: nn.Module | None = None) -> Case:
    net = Net(lambda x, a, b: b(F.relu(a(x))).flatten(1), a=copied(producer or _conv()), b=consumer)
    return Case(net, x, {"layers.a": STAY}, ("layers.b",))


def _image() -> Tensor:
    return torch.randn(64, 3, 7, 6)


def convolution() -> Case:
    return _chain(nn.Conv2d(WIDTH, 5, 3, padding=1), _image())


def without_bias() -> Case:
    return _chain(nn.Conv2d(WIDTH, 5, 3, padding=1, bias=False), _image())


def strided_dilated() -> Case:
    return _chain(nn.Conv2d(WIDTH, 5, (3, 2), stride=(2, 1), padding=2, dilation=2), _image())


def circular_padding() -> Case:
    return _chain(nn.Conv2d(WIDTH, 5, 3, padding=1, padding_mode="circular"), _image())


def reflected_padding() -> Case:
    return _chain(nn.Conv2d(WIDTH, 5, 3, padding=2, padding_mode="reflect"), _image())


def same_padding() -> Case:
    return _chain(nn.Conv2d(WIDTH, 5, (3, 5), padding="same", dilation=(1, 2)), _image())


def transposed() -> Case:
    consumer = nn.ConvTranspose2d(WIDTH, 5, 3, stride=2, padding=1, output_padding=1)
    return _chain(consumer, _image())


def one_dimension() -> Case:
    producer = nn.Conv1d(3, WIDTH, 3)
    return _chain(nn.Conv1d(WIDTH, 5, 3, padding=1), torch.randn(64, 3, 20), producer)


def three_dimensions() -> Case:
    producer = nn.Conv3d(3, WIDTH, 3, padding=1)
    return _chain(nn.Conv3d(WIDTH, 5, (1, 3, 2)), torch.randn(64, 3, 4, 5, 4), producer)


def flattened_linear() -> Case:
    net = Net(
        lambda x, a, b: b(F.relu(a(x)).flatten(1)), a=copied(_conv()), b=nn.Linear(WIDTH * 4, 5)
    )
    return Case(net, torch.randn(200, 3, 2, 2), {"layers.a": STAY}, ("layers.b",))


def linear_on_tokens() -> Case:
    net = Net(
        lambda x, a, b: b(F.gelu(a(x))).flatten(1),
        a=copied(nn.Linear(6, WIDTH)),
        b=nn.Linear(WIDTH, 5),
    )
    return Case(net, torch.randn(40, 9, 6), {"layers.a": STAY}, ("layers.b",))


def grouped() -> Case:
    """A unit is one channel of each of the two groups."""
    net = Net(
        lambda x, a, b: b(F.relu(a(x))).flatten(1),
        a=copied(_conv()),
        b=nn.Conv2d(WIDTH, 6, 3, groups=2),
    )
    return Case(net, _image(), {"layers.a": (0, 2)}, ("layers.b",))


def grouped_transposed() -> Case:
    net = Net(
        lambda x, a, b: b(F.relu(a(x))).flatten(1),
        a=copied(_conv()),
        b=nn.ConvTranspose2d(WIDTH, 6, 3, stride=2, groups=2),
    )
    return Case(net, _image(), {"layers.a": (0, 2)}, ("layers.b",))


def depthwise_and_norms() -> Case:
    net = Net(
        lambda x, a, n, d, m, b: b(F.relu6(m(d(F.relu6(n(a(x))))))).flatten(1),
        a=copied(_conv(bias=False)),
        n=copied(norm(WIDTH)),
        d=copied(_conv(WIDTH, groups=WIDTH, bias=False)),
        m=copied(norm(WIDTH)),
        b=nn.Conv2d(WIDTH, 5, 1),
    )
    return Case(net, _image(), {"layers.a": STAY}, ("layers.b",))


def norm_behind() -> Case:
    """The consumer has no bias: the batch norm behind it takes the mean."""
    net = Net(
        lambda x, a, b, n: F.relu(n(b(F.relu(a(x))))).flatten(1),
        a=copied(_conv()),
        b=nn.Conv2d(WIDTH, 5, 3, bias=False),
        n=norm(5),
    )
    return Case(net, _image(), {"layers.a": STAY}, ("layers.b",))


def concatenation() -> Case:
    net = Net(
        lambda x, a, c, b: b(torch.cat([F.relu(a(x)), x, F.relu(c(x))], 1)).flatten(1),
        a=copied(_conv()),
        c=copied(_conv()),
        b=nn.Conv2d(2 * WIDTH + 3, 5, 3),
    )
    return Case(net, _image(), {"layers.a": STAY, "layers.c": (0, 1, 2, 4, 6)}, ("layers.b",))


def split() -> Case:
    def run(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        first, second = F.relu(a(x)).chunk(2, 1)
        return (b(first) + c(second)).flatten(1)

    half = WIDTH // 2
    net = Net(run, a=copied(_conv()), b=nn.Conv2d(half, 5, 3), c=nn.Conv2d(half, 5, 3))
    return Case(net, _image(), {"layers.a": (0, 2)}, ("layers.b", "layers.c"))


def applied_twice() -> Case:
    """One weight, two applications: one system."""
    net = Net(
        lambda x, a, s, b: b(F.relu(s(F.relu(s(F.relu(a(x))))))).flatten(1),
        a=copied(_conv()),
        s=copied(_conv(WIDTH)),
        b=nn.Conv2d(WIDTH, 5, 1),
    )
    return Case(net, _image(), {"layers.a": STAY}, ("layers.s", "layers.b"))


def applied_to_two_sources() -> Case:
    """As detection heads do: the same layers on two maps."""

    def run(x: Tensor, a: nn.Module, s: nn.Module, n: nn.Module) -> Tensor:
        maps = F.relu(a(x)), F.relu(a(F.avg_pool2d(x, 2)))
        return torch.cat([F.relu(n(s(item))).flatten(1) for item in maps], 1)

    net = Net(run, a=copied(_conv()), s=nn.Conv2d(WIDTH, 5, 3, padding=1, bias=False), n=norm(5))
    return Case(net, _image(), {"layers.a": STAY}, ("layers.s",))


def functional() -> Case:
    """The weight is applied by the forward itself, with padding of its own."""
    net = Net(
        lambda x, a, b: F.conv2d(F.pad(F.relu(a(x)), (0, 1, 1, 0)), b.weight, b.bias).flatten(1),
        a=copied(_conv()),
        b=nn.Conv2d(WIDTH, 5, 3),
    )
    return Case(net, _image(), {"layers.a": STAY}, ("layers.b",))


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        convolution, without_bias, strided_dilated, circular_padding, reflected_padding,
        same_padding, transposed, one_dimension, three_dimensions, flattened_linear,
        linear_on_tokens, grouped, grouped_transposed, depthwise_and_norms, norm_behind,
        concatenation, split, applied_twice, applied_to_two_sources, functional,
    )
}  # fmt: skip

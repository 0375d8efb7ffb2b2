"""Copies with replaced tensors: what is shared stays shared, what is not is the copy's own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from pipeline.channels.rebuild import named_tensors, rebuild, set_widths


class Shared(nn.Module):
    """A module under two names and in a list, tied weights, a buffer, a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.again = self.one
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.one.weight
        self.register_buffer("scale", torch.ones(3))
        self.kept = [self.one]
        self.one.register_forward_hook(_double)


def _double(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


class OwnCopy(nn.Module):
    """Copies itself, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.copied = False

    def __deepcopy__(self, memo: dict[int, Any]) -> OwnCopy:
        built = OwnCopy()
        built.inner = copy.deepcopy(self.inner, memo)
        built.copied = True
        return built


def test_sharing_is_kept() -> None:
    net = Shared()
    weight = torch.full((3, 3), 7.0)
    built = rebuild(net, {"one.weight": weight}, ())
    assert built.one is built.again
    assert built.kept[0] is built.one
    assert built.tied.weight is built.one.weight
    assert torch.equal(built.tied.weight, weight)
    assert not torch.equal(net.one.weight, weight)
    x = torch.randn(2, 3)
    assert torch.equal(built.one(x), 2 * nn.functional.linear(x, weight, built.one.bias))


def test_nothing_is_shared_with_the_network_it_came_from() -> None:
    net = Shared()
    before = {name: tensor.clone() for name, tensor in named_tensors(net).items()}
    built = rebuild(net, {}, ())
    with torch.no_grad():
        for tensor in named_tensors(built).values():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(net).items())


def test_a_module_that_copies_itself_does() -> None:
    built = rebuild(nn.Sequential(OwnCopy()), {"0.inner.bias": torch.zeros(2)}, ())
    assert built[0].copied
    assert not built[0].inner.bias.any()


def test_an_entry_of_a_tuple_is_a_width_too() -> None:
    norm = nn.LayerNorm((8, 4))
    set_widths([(norm, "normalized_shape.0", 5)])
    assert norm.normalized_shape == (5, 4)
    built = rebuild(nn.Sequential(nn.Conv2d(3, 8, 1)), {}, [("0", "out_channels", 2)])
    assert built[0].out_channels == 2


def test_arguments_of_nodes_are_widths_too() -> None:
    class Views(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.reshape(x.view(2, 8), shape=(4, 4))

    net = nn.Sequential(torch.fx.symbolic_trace(Views()))
    widths = [("0", "graph.view.1", 3), ("0", "graph.view.2", 4), ("0", "graph.reshape.shape.1", 3)]
    assert rebuild(net, {}, widths)(torch.zeros(12)).shape == (4, 3)
    assert net(torch.zeros(16)).shape == (4, 4)


def test_constants_of_exported_programs_stay_attributes() -> None:
    class Picks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, [2, 0]]

    x = torch.arange(6.0).view(2, 3)
    net = torch.export.export(Picks(), (x,)).module()
    built = rebuild(net, {}, ())
    assert torch.equal(built(x), x[:, [2, 0]])
    assert list(named_tensors(built)) == list(named_tensors(net)) == []

"""A traced network is the network it was, whatever its forward remembers, changes or breaks."""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))
from net_cases import conv
from whole_state import whole_state

from pipeline.errors import UsageError
from stages.prune import ChannelPlan, prove
from stages.trace import trace
from stages.trace.capture.calls import Ground
from stages.trace.capture.dispatch_capture import by_dispatch
from stages.trace.capture.export_capture import by_export

_BY_DEVICE: dict[Any, torch.Tensor] = {}
_SEEN: list[torch.Tensor] = []
_LATEST: torch.Tensor | None = None


@functools.lru_cache
def _ramp(size: int, device: Any) -> torch.Tensor:
    return torch.linspace(0.5, 1.5, size, device=device)


class Store:
    """A cache that is no module."""

    __slots__ = ("__dict__", "last")

    def __init__(self) -> None:
        self.last, self.kept = None, {}


class Remembering(nn.Module):
    """conv, something that forward remembers, conv, head: `use(self, y)` runs in between."""

    shared: ClassVar[dict[Any, torch.Tensor]] = {}
    latest: torch.Tensor | None = None

    def __init__(self, use: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.head, self.use = conv(3, 4), conv(4, 6), nn.Linear(6, 5), use
        self.mask, self.table, self.notes, self.store = None, {}, [], Store()
        self.queue, self.by_size, self.names = deque(maxlen=2), defaultdict(list), set()
        self.nested, self.counts = OrderedDict(a=[{}]), np.zeros(2)
        self.plain, self.calls = torch.zeros(1), 0
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.head(self.b(self.use(self, self.a(x)).relu()).mean((2, 3)))


def ramp(y: torch.Tensor) -> torch.Tensor:
    """A constant map, as wide and high as `y` and on its device."""
    return torch.linspace(0.5, 1.5, y.shape[3], device=y.device).expand(1, 1, *y.shape[2:])


def in_attribute(m, y):
    if m.mask is None:
        m.mask = ramp(y)
    return y * m.mask


def in_new_attribute(m, y):
    if not hasattr(m, "fresh"):
        m.fresh = ramp(y)
    return y * m.fresh


def in_dict(m, y):
    key = tuple(y.shape[2:])
    if key not in m.table:
        m.table[key] = ramp(y)
    return y * m.table[key]


def in_dict_by_device(m, y):
    if y.device not in m.table:
        m.table[y.device] = ramp(y)
    return y * m.table[y.device]


def in_nested_containers(m, y):
    return y * m.nested["a"][0].setdefault("mask", ramp(y))


def in_buffer(m, y):
    if not hasattr(m, "grid"):
        m.register_buffer("grid", ramp(y), persistent=False)
    return y * m.grid


def in_another_module(m, y):
    if not hasattr(m.a, "grid"):
        m.a.grid = ramp(y)
    return y * m.a.grid


def in_object(m, y):
    m.store.last = y
    return y * m.store.kept.setdefault("mask", ramp(y))


def on_class(m, y):
    type(m).latest = y
    return y * m.shared.setdefault(y.shape[3], ramp(y))


def in_file(m, y):
    if y.device not in _BY_DEVICE:
        _BY_DEVICE[y.device] = ramp(y)
    _SEEN.append(y)
    return y * _BY_DEVICE[y.device]


def in_global(m, y):
    global _LATEST
    if _LATEST is None:
        _LATEST = ramp(y)
    return y * _LATEST


def in_function_cache(m, y):
    return y * _ramp(y.shape[3], y.device)


def in_collections(m, y):
    m.notes.append(y)
    m.queue.append(y)
    m.by_size[y.shape[2]].append(y)
    m.names.add(len(m.names))
    m.calls += 1
    return y


def in_numbers(m, y):
    m.counts += 1
    m.plain += 1
    m.steps += 1
    return y


def in_new_module(m, y):
    if not hasattr(m, "late"):
        m.late = nn.Identity()
    return m.late(y)


def in_hook(m, y):
    m.a.register_forward_hook(lambda *_: None)
    return y


def in_mode(m, y):
    m.a.train(not m.a.training)
    m.b.weight.requires_grad_(False)
    return y


def in_random_state(m, y):
    torch.rand(1), random.random(), np.random.rand()
    return y


WAYS = {
    use.__name__: use
    for use in (
        in_attribute, in_new_attribute, in_dict, in_dict_by_device, in_nested_containers, in_buffer,
        in_another_module, in_object, on_class, in_file, in_global, in_function_cache,
        in_collections, in_numbers, in_new_module, in_hook, in_mode, in_random_state,
    )
}  # fmt: skip
X = torch.randn(2, 3, 8, 8)


@pytest.fixture(autouse=True)
def empty_caches() -> None:
    global _LATEST
    _LATEST = None
    _BY_DEVICE.clear()
    _SEEN.clear()
    _ramp.cache_clear()
    Remembering.shared.clear()
    Remembering.latest = None


def outside() -> Any:
    """What a network can reach beside itself."""
    return (dict(_BY_DEVICE), [*_SEEN, _LATEST], dict(Remembering.shared), Remembering.latest)


@pytest.mark.parametrize("way", WAYS)
def test_what_forward_remembers_is_forgotten(way: str) -> None:
    net = Remembering(WAYS[way]).eval()
    before = whole_state(net)
    graph = trace(net, X)
    assert whole_state(net) == before
    assert outside() == ({}, [None], {}, None)
    assert not any(tensor.is_meta for tensor in net.state_dict().values())
    assert [group.id for group in graph.prunable] == ["a", "b"]
    assert prove(net, graph, ChannelPlan.uniform(graph), [X]).relative < 1e-12


@pytest.mark.parametrize("way", ["in_attribute", "in_dict", "in_dict_by_device", "in_file"])
def test_what_was_remembered_before_is_kept(way: str) -> None:
    net = Remembering(WAYS[way]).eval()
    expected = net(X)
    before, caches = whole_state(net), outside()
    trace(net, X)
    assert whole_state(net) == before
    assert all(a is b for a, b in zip(outside()[0].values(), caches[0].values(), strict=True))
    assert torch.equal(net(X), expected)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_running_leaves_nothing(way: str) -> None:
    net = Remembering(WAYS[way]).train()
    before = whole_state(net)
    for run in (
        functools.partial(by_dispatch, ground=Ground.META, training=True),
        functools.partial(by_dispatch, ground=Ground.FAKE),
        by_export,
    ):
        with contextlib.suppress(Exception):  # torch.export takes fewer of them
            run(net, (X,))
        assert whole_state(net) == before


def raises(m, y):
    in_attribute(m, y)
    in_collections(m, y)
    m.train()
    raise ArithmeticError("no such thing")


def test_a_network_that_raises_is_left_as_it_was() -> None:
    net = Remembering(raises).eval()
    before = whole_state(net)
    with pytest.raises(UsageError):
        trace(net, X)
    assert whole_state(net) == before


class Twice(nn.Module):
    """One block under two names, and one parameter under two names and in a list."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(conv(4, 4), nn.BatchNorm2d(4), nn.PReLU())
        self.stem, self.one, self.other = conv(3, 4), block, nn.ModuleList([block])
        self.scale = self.again = nn.Parameter(torch.rand(4, 1, 1))
        self.listed, self.head = [self.scale, {"x": self.scale}], nn.Linear(4, 5)

    def forward(self, x):
        y = self.other[0](self.one(self.stem(x)) * self.scale * self.again)
        return self.head((y * self.listed[0] * self.listed[1]["x"]).mean((2, 3)))


def test_modules_and_parameters_with_several_names() -> None:
    net = Twice().eval()
    before, expected = whole_state(net), net(X)
    graph = trace(net, X)
    assert whole_state(net) == before
    assert torch.equal(net(X), expected)
    assert {group.id: group.size for group in graph.prunable} == {"stem": 4}
    assert prove(net, graph, ChannelPlan.uniform(graph), [X]).relative < 1e-12


def test_a_network_in_training_mode_stays_in_it() -> None:
    net = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(256, 3)
    )
    net[1].eval()
    before = whole_state(net)
    trace(net, X)
    assert whole_state(net) == before

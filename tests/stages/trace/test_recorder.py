"""Listening directly: the same calls as by PyTorch's own way, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_nets import CASES
from torch import nn

from stages.trace.capture import meta_shapes
from stages.trace.capture.calls import Ground
from stages.trace.capture.dispatch_capture import by_dispatch, record
from stages.trace.capture.recorder import Recorder, Unsupported

_KEY = torch._C.DispatchKey.PreDispatch
_PYTHON = torch._C.DispatchKey.PythonDispatcher


@pytest.mark.parametrize("name", CASES)
def test_direct_calls_are_those_of_the_mode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = CASES[name].build(), torch.randn(CASES[name].shape)
    direct = by_dispatch(net, (x,))
    monkeypatch.setattr(Recorder, "_listen_directly", lambda *_: None)
    assert by_dispatch(net, (x,)) == direct


class Failing(nn.Module):
    def forward(self, x):
        for _ in range(3):
            x = x.relu() + 1
        raise ValueError("on purpose")


def test_no_handler_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    once = Recorder._without_listening
    monkeypatch.setattr(
        Recorder, "_without_listening", lambda *a, **k: (called.append(a[1]), once(*a, **k))[1]
    )
    with pytest.raises(ValueError, match="on purpose"):
        record(Failing(), (torch.randn(1, 3),), Ground.REAL)
    assert torch.ops.aten.relu.default in called
    assert all(_KEY not in func._dispatch_cache for func in called)


def test_operators_run_without_decompositions(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = []
    included = torch._C._dispatch_tls_is_dispatch_key_included
    monkeypatch.setattr(meta_shapes, "result", lambda *_: inside.append(included(_PYTHON)))
    by_dispatch(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), (torch.randn(1, 3, 4, 4),))
    assert inside == [False, False]


class Shuffled(nn.Module):
    """Positions in an order that is a plain list."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x):
        return x[:, :, self.order]


def test_a_long_list_as_an_index_is_read_without_values() -> None:
    net, x = Shuffled([*range(1, 32), 0]), torch.randn(2, 3, 32)
    without, fake = (by_dispatch(net, (x,), ground=ground) for ground in (Ground.META, Ground.FAKE))
    index, last = without.calls[-1], fake.calls[-1]
    assert (index.name, index.shapes) == (last.name, last.shapes)
    assert {source.name for source in without.inputs} == {source.name for source in fake.inputs}


def test_a_short_one_is_not_since_its_numbers_are_remembered() -> None:
    net, x = Shuffled([2, 0, 1]), torch.randn(2, 3, 3)
    with pytest.raises(Unsupported):
        by_dispatch(net, (x,), ground=Ground.META)
    constant = by_dispatch(net, (x,), ground=Ground.FAKE).inputs[-1]
    assert constant.numbers == (2, 0, 1)


@pytest.mark.parametrize("name", CASES)
def test_what_a_call_reads_is_what_its_arguments_hold(name: str) -> None:
    captured = by_dispatch(CASES[name].build(), (torch.randn(CASES[name].shape),))
    assert [call.refs for call in captured.calls] == [replace(c).refs for c in captured.calls]

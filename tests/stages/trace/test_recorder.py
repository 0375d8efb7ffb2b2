"""Listening directly: the same calls as by PyTorch's own way, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from small_nets import CASES
from torch import nn

from stages.trace.capture import meta_shapes
from stages.trace.capture.calls import Ground
from stages.trace.capture.dispatch_capture import by_dispatch, record
from stages.trace.capture.recorder import Recorder

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

"""Networks that trace cannot take: one line that names the user's own code, and not a word beside.

Each is refused as it stands, and left as it was.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_never_wrong import Net, X
from torch import nn
from whole_state import whole_state

from pipeline.errors import OutOfMemory, RlpError, UsageError
from stages.trace import trace


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor


def raises(m, y):
    raise ValueError("the first line\nthe second")


def raises_nothing_said(m, y):
    assert y.shape[1] == 3
    return y


def raises_in_standard_library(m, y):
    return y * json.loads("{")


def raises_for_ever(m, y):
    return raises_for_ever(m, y)


def leaves(m, y):
    sys.exit(3)


def branches(m, y):
    return y + 1 if y.sum() > 0 else y


def loops(m, y):
    while y.mean() < 1:
        y = y + 1
    return y


def to_numpy(m, y):
    return torch.from_numpy(np.tanh(y.detach().numpy()))


def sizes_by_value(m, y):
    return y[:, :, y[0, 0, :, 0].nonzero()[:, 0]]


def wrong_product(m, y):
    return torch.einsum("bchw,cd->bdhw", y, torch.zeros(3, 3))


def wrong_sum(m, y):
    return y + torch.zeros(7)


def missing_name(m, y):
    return functools.reduce(lambda a, b: a + b.missing, [y, y])


FORMS = {
    raises: "raise ValueError",
    raises_nothing_said: "assert y.shape",
    raises_in_standard_library: "json.loads",
    raises_for_ever: "return raises_for_ever",
    leaves: "sys.exit",
    branches: "if y.sum() > 0",
    loops: "while y.mean()",
    to_numpy: "y.detach().numpy()",
    wrong_product: "torch.einsum",
    wrong_sum: "torch.zeros(7)",
    missing_name: "b.missing",
}


def refused(net: Any, inputs: Any, capfd: pytest.CaptureFixture[str]) -> RlpError:
    """How trace refuses; nothing is printed or changed, no frame of ours is shown."""
    before = whole_state(net) if isinstance(net, nn.Module) else None
    with pytest.raises(UsageError) as caught:
        trace(net, inputs)
    assert before is None or whole_state(net) == before
    assert capfd.readouterr() == ("", "")
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames == ["refused", "trace"]
    assert "\n" not in error.message
    assert "/site-packages/" not in error.message
    assert error.hint
    return error


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_line_of_forward_is_named(
    form: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    lines, first = inspect.getsourcelines(form)
    line = first + next(n for n, text in enumerate(lines) if FORMS[form] in text)
    assert f"test_refusals.py:{line} (" in refused(Net(form).eval(), X, capfd).message


def test_size_that_depends_on_values_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(Net(sizes_by_value).eval(), X, capfd).message
    assert "test_never_wrong.py:" in message  # torch.export keeps the line of the module alone
    assert message.endswith("a size depends on the values of a tensor")


def test_hook_that_raises_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    net = plain()

    def hook(*_: Any) -> None:
        raise RuntimeError("no such thing")

    net.b.register_forward_hook(hook)
    line = hook.__code__.co_firstlineno + 1
    message = refused(net, X, capfd).message
    assert f"test_refusals.py:{line}" in message
    assert message.endswith("no such thing")


def test_network_of_library_modules_names_the_module(capfd: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    message = refused(net, X, capfd).message
    assert message.startswith("the network does not run on this input, stopped at 2 (Linear): ")


def plain(leave: Callable[..., Any] = lambda m, y: y, **parts: Any) -> nn.Module:
    return Net(lambda m, y: y, leave=leave, **parts).eval()


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()))


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})


def not_yet_built() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))


def refuses_eval() -> nn.Module:
    class Trained(nn.Linear):
        def train(self, mode: bool = True) -> Any:
            if not mode:
                raise RuntimeError("always in training")
            return super().train(mode)

    return nn.Sequential(nn.Flatten(), Trained(192, 2))


KINDS = {
    "an object": (lambda: plain(lambda m, y: Answer(y)), X, "an object of type Answer"),
    "numpy": (lambda: plain(lambda m, y: y.numpy()), X, "an object of type ndarray"),
    "nothing": (lambda: plain(lambda m, y: None), X, "holds no tensor"),
    "a number": (lambda: plain(lambda m, y: 3.0), X, "holds no tensor"),
    "a lock": (lambda: plain(lock=threading.Lock()), X, "Net.lock cannot be copied"),
    "a generator": (lambda: plain(g=(i for i in "ab")), X, "Net.g cannot be copied"),
    "TorchScript": (scripted, X, "a TorchScript module has no Python code"),
    "quantised": (quantised, X, "head (Linear) is quantised"),
    "lazy": (not_yet_built, X, "the parameter 0.weight has no shape yet"),
    "always in training": (refuses_eval, X, "always in training"),
    "a function": (lambda: torch.relu, X, "trace takes an nn.Module, got"),
    "a class": (lambda: Net, X, "got the class Net"),
    "no inputs": (plain, (), "needs an example input"),
    "None": (plain, None, "of type NoneType, no tensor"),
    "a dict": (plain, {"x": X}, "of type dict, no tensor"),
    "an array": (plain, X.numpy(), "of type ndarray, no tensor"),
    "no images": (plain, X[:0], "of shape (0, 3, 8, 8) has no elements"),
    "too many": (plain, (X, X), "takes 2 positional arguments but 3 were given"),
    "other channels": (plain, X[:, :2], "to have 3 channels, but got 2"),
    "other precision": (plain, X.double(), "(double) and bias type (float)"),
    "whole numbers": (plain, X.long(), "(long int) and bias type (float)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_is_wrong(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    build, inputs, text = KINDS[kind]
    assert text in refused(build(), inputs, capfd).message


def prints(m, y):
    print("forward runs", y.shape)
    sys.stderr.write("forward runs\n")
    warnings.warn("forward runs", stacklevel=2)
    return y


def conditional(m, y):
    return torch.cond(y.sum() > 0, lambda t: t + 1, lambda t: t - 1, (y,))


QUIET = {
    "forward that prints": lambda: Net(prints),
    "a hook that prints": lambda: hooked(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())),
    "torch.cond": lambda: Net(conditional),
    "no parameters": lambda: nn.Sequential(nn.ReLU(), nn.Flatten()),
    "half precision": lambda: Net(lambda m, y: y * 2).bfloat16(),
    "compiled": lambda: torch.compile(Net(lambda m, y: y * 2), backend="eager"),
    "a compiled child": lambda: Net(
        lambda m, y: m.c(y), c=torch.compile(nn.Conv2d(16, 16, 1), backend="eager")),
    "exported": lambda: torch.export.export(Net(lambda m, y: y * 2).eval(), (X,)).module(),
}  # fmt: skip


def hooked(net: nn.Module) -> nn.Module:
    net.register_forward_hook(lambda *_: print("hooked"))
    return net


@pytest.mark.parametrize("name", QUIET)
def test_trace_prints_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    net = QUIET[name]().eval() if name != "exported" else QUIET[name]()
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        graph = trace(net, X.bfloat16() if name == "half precision" else X)
    assert caught == []
    assert capfd.readouterr() == ("", "")
    assert bool(graph.prunable) == (name not in ("no parameters", "a hook that prints"))


def compiled_in_place() -> nn.Module:
    net = Net(lambda m, y: y * 2).eval()
    net.compile(backend="eager")
    return net


def test_module_compiled_in_place_is_as_prunable_as_before() -> None:
    graph = trace(compiled_in_place(), X)
    assert graph.groups == trace(Net(lambda m, y: y * 2).eval(), X).groups


def test_number_in_the_output_keeps_its_width() -> None:
    net = plain(lambda m, y: (y, m.b.weight.shape[0]))
    graph = trace(net, X)
    assert [group.id for group in graph.prunable] == ["a"]
    assert "other values" in graph.frozen["b"]


def no_memory(m, y):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


def no_memory_for_python(m, y):
    raise MemoryError


def no_memory_in_a_copy(m, y):
    if y.shape[1] < 16:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return y


@pytest.mark.parametrize("form", [no_memory, no_memory_for_python, no_memory_in_a_copy])
def test_memory_that_runs_out_is_no_fault_of_the_network(form: Any) -> None:
    net = Net(form).eval()
    before = whole_state(net)
    with pytest.raises(OutOfMemory, match=r"^trace at .*test_refusals.py:\d+ \(raise .*memory$"):
        trace(net, X)
    assert whole_state(net) == before

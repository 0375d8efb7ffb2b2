"""What `trace` promises besides the groups: reasons, one clear refusal, nothing changed, the
same bytes twice.
"""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layer_nets import Conv3d
from moved_nets import ViewHardCoded
from net_cases import Net, conv
from other_nets import UnknownOperator
from small_nets import CASES
from torch import nn

from pipeline.errors import UsageError
from pipeline.torchvision_import import import_torchvision
from stages.prune import ChannelPlan, prove
from stages.trace import trace
from stages.trace.capture import dispatch_capture, export_capture
from stages.trace.capture.calls import Ground


def line_of(function: object, text: str) -> int:
    """Line number of the first line in `function` that contains `text`."""
    lines, first = inspect.getsourcelines(function)  # type: ignore[arg-type]
    return first + next(offset for offset, line in enumerate(lines) if text in line)


class Inner(nn.Module):
    def forward(self, x):
        return torch.cummax(x, 1)[0]


class UnknownInside(Net):
    def __init__(self) -> None:
        super().__init__(4)
        self.a, self.inner = conv(3, 4), Inner()

    def features(self, x):
        return self.inner(self.a(x))


def test_reason_names_operator_module_and_line() -> None:
    reason = trace(UnknownInside(), torch.randn(1, 3, 8, 8)).frozen["a"]
    line = line_of(Inner.forward, "cummax")
    assert reason == f"cummax in inner (test_trace.py:{line}): no rule for this operator"


def test_hard_coded_size_names_its_line() -> None:
    reason = trace(ViewHardCoded(), torch.randn(2, 3, 8, 8)).frozen["a"]
    assert f"moved_nets.py:{line_of(ViewHardCoded.forward, 'view(-1, 256)')}" in reason
    assert "does not follow the channels" in reason


NUMBERS = {
    "a quotient": lambda x: x / x.shape[1],
    "a power": lambda x: x * x.size(1) ** -0.5,
    "all elements": lambda x: x.sum((2, 3), keepdim=True) / x[0].numel(),
    "an option": lambda x: torch.nn.functional.softplus(x, beta=x.shape[1]),
    "a filled tensor": lambda x: x * torch.full((1,), x.shape[1]),
    "a constant": lambda x: x + torch.tensor(float(x.shape[1])),
    "a branch": lambda x: x.relu() if x.shape[1] > 3 else x,
}


class WidthAsNumber(Net):
    """Cut or not, every shape fits; the numbers of the cut network would be others."""

    def __init__(self, compute) -> None:
        super().__init__(6)
        self.a, self.b, self.compute = conv(3, 4), conv(4, 6), compute

    def features(self, x):
        return self.b(self.compute(self.a(x)))


@pytest.mark.parametrize("way", NUMBERS)
def test_number_computed_from_a_width_freezes_it(way: str) -> None:
    net, x = WidthAsNumber(NUMBERS[way]), torch.randn(2, 3, 8, 8)
    graph = trace(net, x)
    assert [group.id for group in graph.prunable] == ["b"]
    assert "does not follow" in graph.frozen["a"]
    assert "test_trace.py:" in graph.frozen["a"]
    assert prove(net, graph, ChannelPlan.uniform(graph), [x]).relative < 1e-12


def test_number_that_no_cut_changes_is_no_obstacle() -> None:
    graph = trace(WidthAsNumber(lambda x: x / x.shape[2]), torch.randn(2, 3, 8, 8))
    assert [group.id for group in graph.prunable] == ["a", "b"]


class Branching(Net):
    def __init__(self) -> None:
        super().__init__(4)
        self.a = conv(3, 4)

    def features(self, x):
        x = self.a(x)
        if x.sum() > 0:
            x = x + 1
        return x


def test_model_that_cannot_be_captured_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError) as caught:
        trace(Branching(), torch.randn(1, 3, 8, 8))
    line = line_of(Branching.features, "if x.sum() > 0")
    assert f"test_trace.py:{line}" in caught.value.message
    assert "depends on the values of a tensor" in caught.value.message


@pytest.mark.parametrize("name", CASES)
def test_listening_sees_what_torch_export_sees(name: str) -> None:
    net, x = CASES[name].build(), torch.randn(CASES[name].shape)
    calls = [call for call in export_capture.by_export(net, (x,)).calls if call.name != "getitem"]
    for ground in (Ground.META, Ground.FAKE):
        heard = dispatch_capture.by_dispatch(net, (x,), ground=ground).calls
        assert [call.name for call in heard] == [call.name for call in calls]
        assert [call.shapes for call in heard] == [call.shapes for call in calls]


def test_same_groups_without_the_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = CASES["ChannelShuffle"].build(), torch.randn(2, 3, 8, 8)
    expected = trace(net, x)
    monkeypatch.setattr(
        dispatch_capture,
        "by_dispatch",
        lambda model, inputs, ground: export_capture.by_export(model, inputs),
    )
    assert trace(net, x).groups == expected.groups


class TwoInTwoOut(nn.Module):
    """An image and a vector in; logits and features out: the features are an output and stay."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 4), nn.Linear(2, 4), conv(4, 6), nn.Linear(6, 5)

    def forward(self, image, vector):
        features = self.a(image) + self.b(vector)[:, :, None, None]
        return {"logits": self.head(self.c(features).mean((2, 3))), "features": features}


def test_several_inputs_and_outputs() -> None:
    net, inputs = TwoInTwoOut(), (torch.randn(2, 3, 8, 8), torch.randn(2, 2))
    graph = trace(net, inputs)
    assert {group.id: group.size for group in graph.prunable} == {"c": 6}
    assert graph.frozen["a"] == "model output"
    assert graph.inputs == ((2, 3, 8, 8), (2, 2))
    assert prove(net, graph, ChannelPlan.uniform(graph), inputs).relative < 1e-12


def test_unused_parameters_are_named() -> None:
    graph = trace(CASES["DefinedBackwards"].build(), torch.randn(2, 3, 8, 8))
    assert graph.unused == ("unused.weight", "unused.bias")
    assert "never reached: unused, 90 numbers" in graph.details()


def test_a_count_of_batches_is_no_layer_that_is_never_reached() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 8), nn.Flatten())
    graph = trace(net.eval(), torch.randn(2, 3, 8, 8))
    assert [name for name in graph.unused if name.endswith("num_batches_tracked")]
    assert "never reached" not in graph.details()


def test_statistics_open_on_request() -> None:
    net, x = CASES["ConvNeXtBlock"].build(), torch.randn(2, 3, 8, 8)
    graph = trace(net, x, open_statistics=True)
    assert graph["a"].prunable
    assert not graph["a"].exact
    assert graph["fc1"].exact
    plan = ChannelPlan({"a": (0, 2)})
    assert prove(net, graph, plan, [x]).relative > 1e-6  # it runs, and is honestly another function


def test_units_of_a_flattened_map() -> None:
    graph = trace(CASES["Flatten4x4"].build(), torch.randn(2, 3, 8, 8))
    assert graph["a"].slices(1) == [
        ("a.weight", 0, (1,)),
        ("a.bias", 0, (1,)),
        ("b.weight", 1, tuple(range(16, 32))),
    ]


def test_graph_json_is_the_same_in_another_process() -> None:
    script = (
        "import sys; sys.path[:0] = ['.', 'tests/stages/trace']\n"
        "import torch, hashlib; from small_nets import CASES; from stages.trace import trace\n"
        "cases = [CASES[n] for n in ('Chain', 'Attention')]\n"
        "graphs = [trace(case.build(), torch.zeros(case.shape)) for case in cases]\n"
        "print(hashlib.sha256(''.join(graph.to_json() for graph in graphs).encode()).hexdigest())"
    )
    root = Path(__file__).parents[3]
    other = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    text = "".join(
        trace(CASES[n].build(), torch.zeros(CASES[n].shape)).to_json()
        for n in ("Chain", "Attention")
    )
    assert other.stdout.strip() == hashlib.sha256(text.encode()).hexdigest()


def test_reasons_do_not_name_folders_of_this_machine() -> None:
    graph = trace(UnknownOperator(), torch.randn(2, 3, 8, 8))
    assert str(Path(__file__).parents[1]) not in graph.to_json()


def test_transformers_trace_with_reasons() -> None:
    swin = import_torchvision().models.swin_transformer.SwinTransformer
    net = swin([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=5)
    graph = trace(net, torch.randn(1, 3, 32, 32))
    assert graph.prunable
    assert all(reason for reason in graph.frozen.values())


def test_three_dimensional_convolution_counts_its_positions() -> None:
    graph = trace(Conv3d(), torch.randn(2, 3, 4, 4, 4))
    assert [layer.positions for layer in graph.layers if layer.weight == "a.weight"] == [64]


def test_network_of_library_modules_alone_is_not_frozen() -> None:
    """No frame of its calls is the network's own; where rlp runs it from must not count as a
    difference.
    """
    layers = (
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    graph = trace(nn.Sequential(*layers, nn.Linear(32, 2)), torch.zeros(1, 3, 16, 16))
    assert [group.size for group in graph.prunable] == [16, 32]

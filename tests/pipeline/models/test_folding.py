"""Computed weights are stored plain: the same outputs, files that open again, and layers that are
left alone because they do more.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from pipeline.config.schema import ModelConfig
from pipeline.errors import ArtifactError
from pipeline.models import build_model, fold_standardised_weights, load_model, save_model
from pipeline.models.folding import SamePaddedConv2d, folded_layers
from stages.prune import ChannelPlan, prove, prune
from stages.trace import trace

X = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F


class StdConv2d(nn.Conv2d):
    def forward(self, x):
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0
        ).reshape_as(self.weight)
        return F.conv2d(
            x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


def net(num_classes=4):
    return nn.Sequential(
        StdConv2d(3, 8, 3, padding=1), nn.ReLU(), StdConv2d(8, 8, 3, groups=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""
exec(SOURCE)  # the tests that save it write it into a file
StdConv2d: type[nn.Conv2d] = globals()["StdConv2d"]


class Scaled(nn.Conv2d):
    """Scaled weight standardisation by hand, behind TensorFlow's padding."""

    def __init__(self, *sizes: int, stride: int = 1) -> None:
        super().__init__(*sizes, stride=stride)
        self.gain = nn.Parameter(torch.rand(sizes[1], 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for dim in (1, 0):
            size, step, kernel = x.shape[2 + dim], self.stride[dim], self.kernel_size[dim]
            missing = max((-(-size // step) - 1) * step + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        mean, var = self.weight.mean((1, 2, 3), True), self.weight.var((1, 2, 3), keepdim=True)
        weight = self.gain * (self.weight - mean) / (var * self.weight[0].numel() + 1e-6).sqrt()
        return F.conv2d(F.pad(x, pads), weight, self.bias, self.stride)


class Own(nn.Module):
    """No convolution of torch's: two stored weights, added."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.one, self.other = (nn.Parameter(torch.randn(out, into, 3, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.one + self.other, padding=1)


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def old(normalise: Callable[..., nn.Module], layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and everywhere
        return normalise(layer)


def parametrised(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Twice())
    return layer


FOLDED: dict[str, Callable[[], nn.Module]] = {
    "standardised": lambda: StdConv2d(3, 8, 3, padding=1, bias=False),
    "standardised, grouped": lambda: StdConv2d(3, 9, 3, groups=3),
    "scaled, same padding": lambda: Scaled(3, 8, 3),
    "scaled, same padding, stride": lambda: Scaled(3, 8, 3, stride=2),
    "scaled, same padding, pointwise": lambda: Scaled(3, 8, 1, stride=2),
    "two weights": lambda: Own(3, 8),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 8, 3, stride=2, padding=1)),
    "weight norm, old": lambda: old(nn.utils.weight_norm, nn.Conv2d(3, 8, 3)),
    "weight norm, transposed": lambda: parametrizations.weight_norm(
        nn.ConvTranspose2d(3, 8, 3, output_padding=1, stride=2)
    ),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)),
    "spectral norm, old": lambda: old(nn.utils.spectral_norm, nn.Conv2d(3, 8, 3)),
    "parametrised": lambda: parametrised(nn.Conv2d(3, 8, 3, dilation=2)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded_layers_give_the_same(name: str) -> None:
    torch.manual_seed(0)
    layer = FOLDED[name]()
    net = nn.Sequential(nn.Sequential(layer), nn.ReLU()).eval()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    folded = fold_standardised_weights(net, X)
    assert folded_layers(folded) == ("0.0",)
    plain = folded[0][0]
    assert type(plain) in (nn.Conv2d, nn.ConvTranspose2d, SamePaddedConv2d)
    for edge in (9, 10, 13):  # another remainder when halved
        x = torch.randn(1, 3, edge, edge + 2)
        with torch.no_grad():
            assert torch.equal(folded(x), net(x))
    assert net[0][0] is layer
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(net.state_dict()[key], tensor) for key, tensor in before.items())


def test_linear_layers_are_folded() -> None:
    net = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(297, 5))).eval()
    folded = fold_standardised_weights(net, X)
    assert type(folded[1]) is nn.Linear
    with torch.no_grad():
        assert torch.equal(folded(X), net(X))


def test_a_layer_of_two_names_stays_one() -> None:
    layer = StdConv2d(3, 3, 3, padding=1)
    folded = fold_standardised_weights(nn.Sequential(layer, nn.ReLU(), layer).eval(), X)
    assert type(folded[0]) is nn.Conv2d
    assert folded[0] is folded[2]


class ByInput(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.mean())


class ByEdge(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.shape[-1])


class AndMore(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 2).relu()


class LessInput(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x * 2, self.weight * 2)


class TwoCalls(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        F.conv2d(x, self.weight)
        return F.conv2d(x, self.weight * 2)


class Noisy(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight + torch.randn_like(self.weight).detach() * self.bias[0])


class Reflecting(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), self.weight * 2)


class OddPad(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 0, 0, 2)), self.weight * 2)


def hooked() -> nn.Module:
    layer = StdConv2d(3, 8, 3)
    layer.register_forward_hook(lambda module, given, output: output * 2)
    return layer


LEFT: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(3, 8, 3),
    "a subclass": lambda: type("Sub", (nn.Conv2d,), {})(3, 8, 3),
    **{kind.__name__: lambda kind=kind: kind(3, 8, 3)
       for kind in (ByInput, ByEdge, AndMore, LessInput, TwoCalls, Reflecting, OddPad)},
    "hooked": hooked,
    "no layer": lambda: nn.PReLU(3),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_layers_that_do_more_are_left_alone(name: str) -> None:
    net = nn.Sequential(LEFT[name]()).eval()
    folded = fold_standardised_weights(net)
    assert folded_layers(folded) == ()
    assert type(folded[0]) is type(net[0])
    with torch.no_grad():
        assert torch.equal(folded(X), net(X))


def test_noise_in_a_weight_is_left_alone() -> None:
    assert folded_layers(fold_standardised_weights(nn.Sequential(Noisy(3, 8, 3)))) == ()


def test_tied_parameters_are_left_alone() -> None:
    net = nn.Sequential(StdConv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    net[1].weight = net[0].weight
    assert folded_layers(fold_standardised_weights(net)) == ()


class Reader(nn.Module):
    """Uses the stored weight of a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = StdConv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.inner.weight)


def test_an_input_shows_who_else_reads_a_weight() -> None:
    net = Reader().eval()
    assert folded_layers(fold_standardised_weights(net, X)) == ()
    assert folded_layers(fold_standardised_weights(net)) == ("inner",)


def test_without_folding_nothing_that_is_read_can_be_cut() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), StdConv2d(8, 6, 3), nn.Flatten(), nn.Linear(210, 3)
    ).eval()
    assert "0" in trace(net, X).frozen
    folded = fold_standardised_weights(net, X)
    graph = trace(folded, X)
    assert [group.id for group in graph.prunable] == ["0", "2"]
    assert prove(folded, graph, ChannelPlan.uniform(graph), [X]).relative < 1e-12


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    (tmp_path / "own_standardised.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return build_model(ModelConfig(source="own_standardised:net"), in_channels=3, num_classes=4)


def test_cut_folded_network_comes_back_bit_for_bit(own: nn.Module, tmp_path: Path) -> None:
    folded = fold_standardised_weights(own.eval(), X)
    graph = trace(folded, X)
    small = prune(folded, graph, ChannelPlan.uniform(graph))
    record = save_model(copy.deepcopy(small), tmp_path / "m")
    assert record.folded == ("0", "2")
    again = load_model(tmp_path / "m")
    with torch.no_grad():
        assert torch.equal(again(X), small(X))
    save_model(again, tmp_path / "n")
    assert (tmp_path / "n" / "model.json").read_bytes() == (
        tmp_path / "m" / "model.json"
    ).read_bytes()


def test_files_of_unfolded_networks_are_as_before(own: nn.Module, tmp_path: Path) -> None:
    save_model(own, tmp_path / "m")
    assert "folded" not in json.loads((tmp_path / "m" / "model.json").read_text())
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "m")(X), own.eval()(X))


def test_a_file_that_folds_what_cannot_be_is_refused(own: nn.Module, tmp_path: Path) -> None:
    save_model(fold_standardised_weights(own.eval()), tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    for wrong in ("6", "none.such"):
        document = json.loads(path.read_text())
        document["folded"] = ["0", wrong]
        path.write_text(json.dumps(document))
        with pytest.raises(ArtifactError, match=wrong):
            load_model(tmp_path / "m")

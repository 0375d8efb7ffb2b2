"""Wrappers are taken off, other floats converted, frozen parameters thawed; the rest is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pipeline.errors import UsageError
from pipeline.models.plain import plain_network, remarks_on


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def frozen() -> nn.Sequential:
    network = net()
    network[0].requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (nn.DataParallel, "taken out of DataParallel"),
        (AveragedModel, "taken out of AveragedModel"),
        (torch.compile, "taken out of OptimizedModule"),
        (nn.Module.half, "was float16"),
        (nn.Module.double, "was float64"),
        (lambda network: nn.DataParallel(network.bfloat16()), "was bfloat16"),
        (lambda network: frozen(), "2 of 4 parameters were frozen"),
    ],
)
def test_what_is_clear_is_done_and_said(wrap: Callable[[nn.Module], nn.Module], said: str) -> None:
    plain = plain_network(wrap(net()), "nets:net")
    assert plain.state_dict().keys() == net().state_dict().keys()
    assert all(p.dtype == torch.float32 and p.requires_grad for p in plain.parameters())
    assert said in " ".join(remarks_on(plain))


def test_of_a_plain_network_nothing_is_said() -> None:
    network = net()
    assert plain_network(network, "nets:net") is network
    assert remarks_on(network) == []
    assert plain_network(torch.fx.symbolic_trace(network), "nets:net") is not network


def test_someone_elses_wrapper_of_that_name_is_a_network() -> None:
    class DataParallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = net()

    network = DataParallel()
    assert plain_network(network, "nets:net") is network


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(net().eval(), torch.zeros(1, 3, 8, 8))


def exported() -> nn.Module:
    return torch.export.export(net().eval(), (torch.zeros(2, 3, 8, 8),)).module()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (scripted, "a TorchScript module"),
        (exported, "an exported program"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), r"0 \(LazyConv2d\) has no sizes yet"),
    ],
)
def test_what_is_no_plain_network_is_refused(make: Callable[[], nn.Module], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        plain_network(make(), "nets:net")

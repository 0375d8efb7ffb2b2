"""Batch norms fused into the convolutions before them, of networks that only answer.

In eval mode a batch norm is one factor and one summand a channel. As a layer of its own it takes a
CPU as long as the convolution does; in the convolution's weights it costs nothing.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_TOLERANCE = 1e-3  # of the largest output; float32 rounds some 1e-6 of it


def fuse_batchnorms(network: nn.Module, x: Tensor) -> None:
    """Compute the batch norms of `network` that follow a convolution inside it, in place for good.

    The network is in eval mode. Other batch norms stay as they are, and all of them where the
    answers to `x` (B, C, H, W) would change: a convolution's result may be read by more than the
    batch norm.
    """
    before = _answers(network, x)
    fused = [_Fused(*pair) for pair in _followers(network, x)]
    after = _answers(network, x)
    if not bool((after - before).abs().max() <= _TOLERANCE * before.abs().max()):
        for pair in fused:
            pair.undo()


class _Nothing(nn.BatchNorm2d):
    """A batch norm that the convolution before it has computed already."""

    def forward(self, input: Tensor) -> Tensor:
        return input


class _Fused:
    """A convolution with the batch norm behind it in its weights."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        self.convolution, self.norm = convolution, norm
        self.before = convolution.weight, convolution.bias
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,  # type: ignore[arg-type]
            norm.running_var,  # type: ignore[arg-type]
            norm.eps,
            norm.weight,
            norm.bias,
        )
        norm.__class__ = _Nothing  # in place: names, weights and hooks stay

    def undo(self) -> None:
        self.convolution.weight, self.convolution.bias = self.before
        self.norm.__class__ = nn.BatchNorm2d


def _followers(network: nn.Module, x: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the batch norms that are given their results, each called once."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[int] = Counter()

    def saw(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[id(module)] += 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = (module, output)  # held, or its id would be given to another
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    handles = [m.register_forward_hook(saw) for m in network.modules() if _is_fusible(m)]
    try:
        _answers(network, x)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if all(calls[id(module)] == 1 for module in pair)]


def _is_fusible(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        # a weight that is computed at every call, as by weight norm, cannot be replaced
        return "weight" in module._parameters
    return type(module) is nn.BatchNorm2d and module.track_running_stats


def _answers(network: nn.Module, x: Tensor) -> Tensor:
    # bf16 rounds more than what is looked for
    exact = torch.autocast(x.device.type, enabled=False)
    with torch.no_grad(), exact:
        answers: Tensor = network(x)
    return answers

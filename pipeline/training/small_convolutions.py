"""Convolutions that cost less on a CPU than oneDNN's, for some widths and maps.

Every candidate of a search brings widths that oneDNN has not seen, and for each of them it compiles
kernels, which takes longer than scoring 64 images. Matrix products need none. Depthwise
convolutions of maps of a few pixels take oneDNN's backward pass as long as the rest of a small
network.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FEW = 4  # pixels of a map; beyond, the usual depthwise convolution is quicker


def use_small_convolutions(network: nn.Module) -> None:
    """Let the convolutions of `network` that have a quicker equal compute that way, in place."""
    for module in network.modules():
        if _is_pointwise(module):
            module.__class__ = PointwiseProduct  # in place: names, weights and hooks stay
        elif _is_centred_depthwise(module):
            module.__class__ = DepthwiseSum


@contextmanager
def depthwise_sums(network: nn.Module) -> Iterator[None]:
    """Train `network` on a CPU with quicker depthwise convolutions; afterwards it has its own.

    The matrix products stay out: their backward pass is slower than oneDNN's.
    """
    found = [module for module in network.modules() if _is_centred_depthwise(module)]
    for module in found:
        module.__class__ = DepthwiseSum
    try:
        yield
    finally:
        for module in found:
            module.__class__ = nn.Conv2d


class PointwiseProduct(nn.Conv2d):
    """A 1×1 convolution as a matrix product over a channels-last image."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch, channels, height, width = input.shape
        pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
        out = F.linear(pixels, weight.reshape(-1, channels), bias)
        return out.view(batch, height, width, -1).permute(0, 3, 1, 2)


class DepthwiseSum(nn.Conv2d):
    """A depthwise convolution that on maps of a few pixels is a sum of products, pixel by pixel.

    oneDNN's forward and backward take two to four times as long there, and on maps of one pixel,
    which PyTorch takes for contiguous, longer still.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch, channels, height, width = input.shape
        if height * width > _FEW:
            return super()._conv_forward(input, weight, bias)
        rows, columns = weight.shape[2:]
        taps = _taps(height, width, rows, columns, *self.stride)
        factors = taps.to(weight) @ weight.flatten(1).T
        pixels = input.permute(0, 2, 3, 1).reshape(batch, height * width, 1, 1, channels)
        out = (pixels * factors).sum(1).permute(0, 3, 1, 2)
        return out if bias is None else out + bias[:, None, None]


@functools.cache
def _taps(height: int, width: int, rows: int, columns: int, down: int, right: int) -> Tensor:
    """(input pixel, output row, output column, tap): 1 where a tap of the kernel joins the two."""
    # Cached: whoever asks first may be in inference mode, and training could not use the tensor.
    with torch.inference_mode(False), torch.no_grad():
        pixels = torch.eye(height * width).view(-1, 1, height, width)
        kernels = torch.eye(rows * columns).view(-1, 1, rows, columns)
        met = F.conv2d(pixels, kernels, stride=(down, right), padding=(rows // 2, columns // 2))
        return met.permute(0, 2, 3, 1).contiguous()


def _is_centred_depthwise(module: nn.Module) -> bool:
    """Whether the padding is half of an odd kernel, and the kernel dense."""
    if type(module) is not nn.Conv2d or isinstance(module.padding, str):
        return False
    if module.padding_mode != "zeros" or module.dilation != (1, 1):
        return False
    sides = zip(module.kernel_size, module.padding, strict=True)
    return module.groups == module.in_channels == module.out_channels and all(
        size % 2 and pad == size // 2 for size, pad in sides
    )


def _is_pointwise(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and (module.kernel_size, module.stride, module.groups) == ((1, 1), (1, 1), 1)
        and module.padding in ((0, 0), "valid", "same")
    )

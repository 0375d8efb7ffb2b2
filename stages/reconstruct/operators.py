"""The calls of a forward pass that least squares can refit: linear maps, and batch norms whose
means follow.

They are read where they reach PyTorch, not at the modules: what a module does before its
convolution (circular padding, TensorFlow's "same") has happened by then, and a weight that is
applied by a function is found as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (
    "input",
    "weight",
    "bias",
    "stride",
    "padding",
    "output_padding",
    "groups",
    "dilation",
)
_NORM = tuple(inspect.signature(torch.nn.functional.batch_norm).parameters)
_NORM_OP = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")

SIGNATURES: dict[Callable[..., Any], tuple[str, tuple[str, ...]]] = {
    torch.conv1d: ("conv", _CONV),
    torch.conv2d: ("conv", _CONV),
    torch.conv3d: ("conv", _CONV),
    torch.conv_transpose1d: ("transposed", _TRANSPOSED),
    torch.conv_transpose2d: ("transposed", _TRANSPOSED),
    torch.conv_transpose3d: ("transposed", _TRANSPOSED),
    F.linear: ("linear", ("input", "weight", "bias")),
    F.batch_norm: ("norm", _NORM),
    torch.batch_norm: ("norm", _NORM_OP),
}
"""Functions by identity: what they are, and the names of their positional arguments."""


@dataclass(frozen=True)
class Norm:
    """A batch norm with running statistics: input (B, C, *space) or (B, C)."""

    input: Tensor
    mean: Tensor
    var: Tensor
    weight: Tensor | None
    eps: float

    @property
    def named(self) -> Tensor:
        """The tensor that the call is known by."""
        return self.mean


@dataclass(frozen=True)
class LinearMap:
    """A convolution, transposed convolution or linear layer: rows of `patches` times `matrix`.

    `input` is (B, C, *space) for convolutions, (B, *space, C) for linear layers; `space` of the
    input, `kernel`, `stride`, `padding` and `dilation` have one entry a spatial dimension.
    """

    kind: str
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def named(self) -> Tensor:
        """The tensor that the call is known by."""
        return self.weight

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @property
    def taps(self) -> int:
        """Weights that one output makes of one input channel."""
        return prod(self.kernel)

    @property
    def channel_dim(self) -> int:
        """Where the channels of input and output lie."""
        return -1 if self.kind == "linear" else 1

    @property
    def out_dim(self) -> int:
        """The dimension of the weight that counts output channels."""
        return 1 if self.kind == "transposed" else 0

    def matrix(self, weight: Tensor | None = None) -> Tensor:
        """The weight as (groups, out / groups, taps · in / groups), a tap's channels adjacent."""
        weight = self.weight if weight is None else weight
        flat = weight.flatten(2) if weight.dim() > 2 else weight.unsqueeze(2)
        if self.kind == "transposed":
            into, out, taps = flat.shape
            split = flat.reshape(self.groups, into // self.groups, out, taps)
            return split.permute(0, 2, 3, 1).reshape(self.groups, out, -1)
        out, into, taps = flat.shape
        split = flat.reshape(self.groups, out // self.groups, into, taps)
        return split.transpose(2, 3).reshape(self.groups, out // self.groups, -1)

    def weight_of(self, matrix: Tensor) -> Tensor:
        """Inverse of `matrix`."""
        split = matrix.reshape(self.groups, matrix.shape[1], self.taps, -1)
        order = (0, 3, 1, 2) if self.kind == "transposed" else (0, 1, 3, 2)
        return split.permute(order).reshape(self.weight.shape).contiguous()


def read(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> LinearMap | Norm | None:
    """The call as one of the two kinds; None for everything else."""
    known = SIGNATURES.get(func) if callable(func) else None
    if known is None:
        return None
    kind, names = known
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return _norm(given) if kind == "norm" else _linear_map(kind, given)


def _norm(given: Mapping[str, Any]) -> Norm | None:
    if given.get("running_mean") is None or given.get("training"):
        return None  # it normalises by the batch it sees: there is nothing to correct
    return Norm(
        given["input"],
        given["running_mean"],
        given["running_var"],
        given.get("weight"),
        given.get("eps", 1e-5),
    )


def _linear_map(kind: str, given: Mapping[str, Any]) -> LinearMap | None:
    x, weight = given["input"], given["weight"]
    if kind == "linear":
        return LinearMap(kind, x, weight, given.get("bias")) if x.dim() > 1 else None
    dims = weight.dim() - 2
    stride, dilation = (_each(given.get(name, 1), dims) for name in ("stride", "dilation"))
    padding = given.get("padding", 0)
    if isinstance(padding, str):  # the odd pixel of "same" goes to the far side
        reach = [d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        padding = reach if padding == "same" else 0
    if x.dim() != weight.dim():
        return None  # one image without a batch dimension
    groups = given.get("groups", 1)
    return LinearMap(
        kind, x, weight, given.get("bias"), stride, _each(padding, dims), dilation, groups
    )


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    # torch takes (2,) for all dimensions
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims // len(value))

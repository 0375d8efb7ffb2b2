"""Results of common operators on meta tensors by their shape formulas.

PyTorch computes these shapes in Python through chains of decompositions, a fifth of a millisecond
to over one for each call, which is most of the time of a capture. A function here answers the plain
case and returns None for any other; arguments that do not fit are such a case, so that PyTorch
itself says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def like(tensor: torch.Tensor, shape: tuple[int, ...] | None = None) -> torch.Tensor:
    """A meta tensor of the same type; without `shape`, also of the same shape and order of
    strides.
    """
    if shape is None and not tensor.is_contiguous():  # whether `view` works hangs on strides
        return torch.empty_like(tensor, device="meta", requires_grad=False)
    return torch.empty(tensor.shape if shape is None else shape, dtype=tensor.dtype, device="meta")


def result(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What `aten::<name>` returns on these arguments, or None when PyTorch must be asked."""
    if name == "cat" and not kwargs:
        return _cat(*args)
    first = args[0] if args else None
    if not isinstance(first, torch.Tensor) or not first.is_meta:
        return None
    if name in _KEEP:
        return first if name.endswith("_") else like(first)
    return _FORMULAS[name](*args) if name in _FORMULAS and not kwargs else None


def _convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> torch.Tensor | None:
    """⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1 along both edges."""
    if (
        x.dim() != 4
        or weight.dim() != 4
        or any(len(option) != 2 for option in (stride, padding, dilation))
    ):
        return None
    fits = x.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    if (
        isinstance(padding, str)
        or not fits
        or not _same_type(x, weight)
        or not _fits(bias, weight.shape[0])
    ):
        return None
    edges = [
        (size + 2 * pad - hole * (kernel - 1) - 1) // step + 1
        for size, pad, hole, kernel, step in zip(
            x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    ]
    return like(x, (x.shape[0], weight.shape[0], *edges)) if min(edges) > 0 else None


def _linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor | None:
    fits = (
        x.dim() > 0
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and _fits(bias, weight.shape[0])
    )
    return like(x, (*x.shape[:-1], weight.shape[0])) if fits and _same_type(x, weight) else None


def _elementwise(x: torch.Tensor, other: Any, *rest: Any) -> torch.Tensor | None:
    # numbers and other dtypes may promote the result: PyTorch knows the rules
    if rest or not isinstance(other, torch.Tensor) or not _same_type(x, other):
        return None
    if x.shape == other.shape:
        return like(x)
    if x.dim() != other.dim() or any(
        a != b and 1 not in (a, b) for a, b in zip(x.shape, other.shape, strict=True)
    ):
        return None
    return like(x, tuple(b if a == 1 else a for a, b in zip(x.shape, other.shape, strict=True)))


def _pooled_to(x: torch.Tensor, size: Any) -> torch.Tensor | None:
    return (
        like(x, (*x.shape[:2], *size))
        if x.dim() == 4 and len(size) == 2 and None not in size
        else None
    )


def _cat(tensors: Any, dim: int = 0) -> torch.Tensor | None:
    tensors = list(tensors)
    first = tensors[0]
    if (
        not all(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in tensors)
        or not first.dim()
    ):
        return None
    dim %= first.dim()
    beside = [
        (tensor.dtype, *tensor.shape[:dim], None, *tensor.shape[dim + 1 :]) for tensor in tensors
    ]
    if any(other != beside[0] for other in beside):
        return None
    return like(
        first,
        (*first.shape[:dim], sum(tensor.shape[dim] for tensor in tensors), *first.shape[dim + 1 :]),
    )


def _same_type(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and other.is_meta


def _fits(bias: torch.Tensor | None, size: int) -> bool:
    return bias is None or tuple(bias.shape) == (size,)


# in training a batch norm also writes its statistics: without values there is nothing to write
_KEEP = {
    f"{name}{suffix}"
    for name in ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu",
                 "sigmoid", "tanh", "elu", "leaky_relu", "mish", "selu", "dropout", "layer_norm",
                 "group_norm", "batch_norm", "instance_norm")
    for suffix in ("", "_")
}  # fmt: skip
_FORMULAS: dict[str, Callable[..., torch.Tensor | None]] = {
    "conv2d": _convolution,
    "linear": _linear,
    "add": _elementwise,
    "mul": _elementwise,
    "adaptive_avg_pool2d": _pooled_to,
}

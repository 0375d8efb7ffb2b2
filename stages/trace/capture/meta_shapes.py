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
    if name in _FORMULAS and (not kwargs or kwargs == _NOT_PINNED):
        return _FORMULAS[name](*args)
    return None


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
    size, kernel = x.shape, weight.shape
    if len(size) != 4 or len(kernel) != 4:
        return None
    if size[1] != kernel[1] * groups or kernel[0] % groups:
        return None
    if not _same_type(x, weight) or not _fits(bias, kernel[0]):
        return None
    edges = _edges(size, kernel[2:], stride, padding, dilation)
    return like(x, (size[0], kernel[0], *edges)) if edges else None


def _pooled(
    x: torch.Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    ceil_mode: bool = False,
) -> torch.Tensor | None:
    size = x.shape
    if len(size) != 4 or ceil_mode or len(kernel) != 2 or len(padding) != 2:
        return None
    if any(2 * pad > edge for pad, edge in zip(padding, kernel, strict=True)):
        return None
    edges = _edges(size, kernel, stride or kernel, padding, dilation)
    return like(x, (size[0], size[1], *edges)) if edges else None


def _averaged(
    x: torch.Tensor, kernel: Any, stride: Any = (), padding: Any = (0, 0), *rest: Any
) -> torch.Tensor | None:
    # whether padding counts and what is divided by changes no shape
    return _pooled(x, kernel, stride, padding, (1, 1), bool(rest and rest[0]))


def _edges(size: Any, kernel: Any, *options: Any) -> tuple[int, int] | None:
    """Height and width of what a window that slides over a map gives; None where PyTorch must be
    asked, as for `padding="same"`.
    """
    if any(len(option) != 2 for option in options):
        return None
    stride, padding, dilation = options
    if isinstance(padding, str):
        return None
    height, width = (
        (size[d + 2] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
        for d in (0, 1)
    )
    return (height, width) if height > 0 and width > 0 else None


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
    # integers and other dtypes may promote the result: PyTorch knows the rules
    if rest:
        return None
    if type(other) in (int, float):
        return like(x) if x.is_floating_point() else None
    if not isinstance(other, torch.Tensor) or not _same_type(x, other):
        return None
    if not x.is_floating_point():  # integers that are divided are none
        return None
    if x.shape == other.shape:
        return like(x)
    shape = _broadcast(x.shape, other.shape)
    return None if shape is None else like(x, shape)


def _broadcast(one: Any, two: Any) -> tuple[int, ...] | None:
    count = max(len(one), len(two))
    one, two = ((1,) * (count - len(shape)) + tuple(shape) for shape in (one, two))
    if any(a != b and 1 not in (a, b) for a, b in zip(one, two, strict=True)):
        return None
    return tuple(b if a == 1 else a for a, b in zip(one, two, strict=True))


def _matmul(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
    """Of matrices, or of equally many of them."""
    one, two = x.shape, other.shape
    if len(one) != len(two) or len(one) < 2 or one[:-2] != two[:-2] or one[-1] != two[-2]:
        return None
    return like(x, (*one[:-1], two[-1])) if _same_type(x, other) else None


def _of_float(x: torch.Tensor) -> torch.Tensor | None:
    return like(x) if x.is_floating_point() else None  # of integers it gives floats


def _in_place(x: torch.Tensor, other: Any, *rest: Any) -> torch.Tensor | None:
    if rest or not x.is_floating_point():
        return None
    if type(other) in (int, float):
        return x
    if not isinstance(other, torch.Tensor) or not _same_type(x, other):
        return None
    return x if x.shape == other.shape else None


def _over_dims(x: torch.Tensor, dims: Any = None, keepdim: bool = False) -> torch.Tensor | None:
    """A mean or a sum."""
    count = x.dim()
    if not count or not x.is_floating_point() or any(type(dim) is not int for dim in dims or ()):
        return None
    gone = {dim % count for dim in dims} if dims else set(range(count))
    if dims and (len(gone) != len(dims) or not all(-count <= dim < count for dim in dims)):
        return None
    if keepdim:
        return like(x, tuple(1 if d in gone else size for d, size in enumerate(x.shape)))
    return like(x, tuple(size for d, size in enumerate(x.shape) if d not in gone))


def _variance(
    x: torch.Tensor, dims: Any = None, unbiased: bool = True, keepdim: bool = False
) -> torch.Tensor | None:
    return _over_dims(x, dims, keepdim) if isinstance(dims, (list, tuple)) else None


def _norm(
    x: torch.Tensor, order: Any = 2, dims: Any = None, keepdim: bool = False, *rest: Any
) -> torch.Tensor | None:
    return None if rest else _over_dims(x, dims, keepdim)


def _resized(x: torch.Tensor, size: Any, *rest: Any) -> torch.Tensor | None:
    # by factors PyTorch rounds in its own way; another order of strides it keeps
    return _pooled_to(x, size) if size is not None and x.is_contiguous() else None


def _pooled_to(x: torch.Tensor, size: Any) -> torch.Tensor | None:
    return (
        like(x, (*x.shape[:2], *size))
        if x.dim() == 4 and len(size) == 2 and None not in size
        else None
    )


def _of_size(x: torch.Tensor, size: Any) -> torch.Tensor:
    return like(x, tuple(size))


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


_NOT_PINNED = {"pin_memory": False}  # what functions that make tensors are always given
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
    **dict.fromkeys(("add", "sub", "mul", "div"), _elementwise),
    **dict.fromkeys(("add_", "sub_", "mul_", "div_"), _in_place),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _over_dims),
    **dict.fromkeys(("sqrt", "rsqrt", "exp"), _of_float),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _resized),
    "var": _variance,
    "linalg_vector_norm": _norm,
    "matmul": _matmul,
    "max_pool2d": _pooled,
    "avg_pool2d": _averaged,
    "adaptive_avg_pool2d": _pooled_to,
    "zeros_like": like,
    "new_zeros": _of_size,
}

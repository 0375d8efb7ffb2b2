"""What a layer really multiplies: one call of it, listened to.

The layer runs on an input without values. Whatever it computes from its own parameters has values,
whatever depends on the input has none, so a weight with values is a function of the parameters
alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pipeline.channels.rebuild import rebuild

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_CONV[:5], "output_padding", "groups", "dilation")
KINDS: dict[Callable[..., Any], tuple[type[nn.Module], tuple[str, ...]]] = {
    F.linear: (nn.Linear, _CONV[:3]),
    F.conv1d: (nn.Conv1d, _CONV),
    F.conv2d: (nn.Conv2d, _CONV),
    F.conv3d: (nn.Conv3d, _CONV),
    F.conv_transpose1d: (nn.ConvTranspose1d, _TRANSPOSED),
    F.conv_transpose2d: (nn.ConvTranspose2d, _TRANSPOSED),
    F.conv_transpose3d: (nn.ConvTranspose3d, _TRANSPOSED),
}
"""Functions by identity: the layer that calls nothing else, and the function's arguments."""
_PAD = tuple(inspect.signature(F.pad).parameters)
_EDGE = 64  # pixels: wider than any kernel


class NotLinear(Exception):
    """The layer does more than multiply its input by a weight of its own."""


@dataclass(frozen=True)
class LinearCall:
    """A layer that applies one linear function to its input, zero-padded before if at all.

    `pads` are those of F.pad, for each of the `edges` of the input that were tried.
    """

    kind: type[nn.Module]
    weight: Tensor
    bias: Tensor | None
    options: Mapping[str, Any]
    pads: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, ...], ...]


def linear_call(layer: nn.Module) -> LinearCall:
    """How `layer`, which is not changed, computes its output in eval mode.

    Raises:
        NotLinear: that is no single linear function, or not the same for all inputs.
    """
    copy = rebuild(layer, {}, ()).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        heard = list(_heard(copy))
    first, *others = heard
    if any(_is(first.weight, stored) for stored in (*copy.parameters(), *copy.buffers())):
        raise NotLinear  # it computes nothing
    for other in others:
        same = _equal(other.weight, first.weight) and _equal(other.bias, first.bias)
        if not same or (other.kind, other.options) != (first.kind, first.options):
            raise NotLinear
    return LinearCall(
        first.kind,
        first.weight,
        first.bias,
        first.options,
        tuple(call.pads[0] for call in heard),
        tuple(call.edges[0] for call in heard),
    )


def _heard(layer: nn.Module) -> Iterator[LinearCall]:
    """Calls on inputs of several edges."""
    dims = max((tensor.dim() for tensor in layer.parameters()), default=0) - 2
    first = _listen(layer, next(_edges(dims, 1)))  # which also tells the stride
    stride = first.options.get("stride", 1)
    yield first
    for edges in list(_edges(dims, max(stride) if isinstance(stride, Sequence) else stride))[1:]:
        yield _listen(layer, edges)


def _edges(dims: int, steps: int) -> Iterator[tuple[int, ...]]:
    """Edges of inputs of any remainder when divided by a stride; another one along each dim."""
    for extra in range(max(steps, 2) + 1):
        yield tuple(_EDGE + extra + 3 * dim for dim in range(dims))


def _listen(layer: nn.Module, edges: tuple[int, ...]) -> LinearCall:
    try:
        x = torch.empty(2, _channels(layer), *edges, device="meta", dtype=_dtype(layer))
        with _Listener(x) as listener:
            output = layer(x)
    except Exception as error:  # what a layer of one's own may raise on such an input
        raise NotLinear from error
    if len(listener.heard) != 1 or output is not listener.output:  # something else came after
        raise NotLinear
    return listener.heard[0]


class _Listener(TorchFunctionMode):
    """Notes the linear functions of `x`, and of `x` padded by zeros."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.padded, self.pads = x, x, (0,) * 2 * (x.dim() - 2)
        self.heard: list[LinearCall] = []
        self.output: Any = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.pad:
            return self._pad(dict(zip(_PAD, args, strict=False)) | kwargs)
        if callable(func) and func in KINDS:
            kind, names = KINDS[func]
            return self._multiply(func, kind, dict(zip(names, args, strict=False)) | kwargs)
        return func(*args, **kwargs)

    def _pad(self, given: dict[str, Any]) -> Any:
        padded = F.pad(**given)
        zeros = given.get("mode", "constant") == "constant" and not given.get("value")
        if given["input"] is self.x and zeros:
            self.padded, self.pads = padded, tuple(given["pad"])
        return padded

    def _multiply(self, func: Any, kind: type[nn.Module], given: dict[str, Any]) -> Any:
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        if weight.is_meta or (bias is not None and bias.is_meta):  # it depends on the input
            raise NotLinear
        pads = tuple(0 for _ in self.pads) if x is self.x else self.pads
        if x is self.x or x is self.padded:
            edges = tuple(self.x.shape[2:])
            self.heard.append(LinearCall(kind, weight, bias, given, (pads,), (edges,)))
        self.output = func(x, weight.to("meta"), None if bias is None else bias.to("meta"), **given)
        return self.output


def _channels(layer: nn.Module) -> int:
    for name in ("in_channels", "in_features"):
        if type(given := getattr(layer, name, None)) is int:
            return given
    largest = max(layer.parameters(), key=Tensor.numel)
    groups = getattr(layer, "groups", 1)
    return largest.shape[min(largest.dim() - 1, 1)] * (groups if type(groups) is int else 1)


def _dtype(layer: nn.Module) -> torch.dtype:
    return next(layer.parameters()).dtype


def _is(one: Tensor, stored: Tensor) -> bool:
    # by memory: detached, a parameter is another object
    return one.data_ptr() == stored.data_ptr() and one.shape == stored.shape


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    if torch.equal(one, other):
        return True
    # of untrained parameters, zeros divided by zeros
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())

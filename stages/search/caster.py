"""One network that takes on the shape of any candidate, in milliseconds and without copying the
rest.

`stages.prune.prune` gives every cut network its own modules. A search looks at thousands of
candidates one after the other, so here one twin of the network is kept, and casting a candidate
only puts freshly sliced tensors into its modules and sets their width attributes. Every candidate
also brings widths that oneDNN has not seen, and for each of them compiles kernels, which takes
longer than a look at 64 images; the twin's 1×1 convolutions are matrix products instead, which need
none.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.channels.rebuild import named_tensors
from pipeline.channels.surgery import slice_tensors
from stages.trace import ChannelGraph

Keep = Mapping[str, Sequence[int]]


class Caster:
    """Holds the original's tensors (shared, never written) and the twin.

    Args:
        model: the original network.
        ids: groups that candidates may cut.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, ids: Sequence[str]) -> None:
        self.graph = graph
        self.whole = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
        self.twin = copy.deepcopy(model).requires_grad_(False)
        for module in self.twin.modules():
            if _is_pointwise(module):
                module.__class__ = _Pointwise
            elif _is_centred_depthwise(module):
                module.__class__ = _Depthwise
        members = [member.parameter for group in ids for member in graph[group].members]
        self.touched = list(dict.fromkeys(members))
        canonical = {id(tensor): name for name, tensor in named_tensors(self.twin).items()}
        self.slots: dict[str, list[tuple[nn.Module, str, bool]]] = {
            name: [] for name in self.touched
        }
        for module in self.twin.modules():
            for key, parameter in module._parameters.items():
                if canonical.get(id(parameter)) in self.slots:
                    self.slots[canonical[id(parameter)]].append((module, key, True))
            for key, buffer in module._buffers.items():
                if canonical.get(id(buffer)) in self.slots:
                    self.slots[canonical[id(buffer)]].append((module, key, False))
        self.modules = dict(self.twin.named_modules(remove_duplicate=False))
        wanted = set(ids)
        self.widths = [
            width for width in graph.widths if any(group in wanted for group, _ in width.follows)
        ]

    def cast(self, keep: Keep) -> nn.Module:
        """The twin as `prune(model, graph, ChannelPlan(keep))` would be; it is the same object
        at every call.
        """
        changed = slice_tensors({name: self.whole[name] for name in self.touched}, self.graph, keep)
        for name in self.touched:
            for module, key, trainable in self.slots[name]:
                if trainable:
                    data = changed[name] if name in changed else self.whole[name]
                    module._parameters[key] = nn.Parameter(data, requires_grad=False)
                else:
                    module._buffers[key] = (
                        changed[name] if name in changed else self.whole[name].clone()
                    )
        for width in self.widths:
            lost = sum(
                share * (self.graph[g].size - len(keep[g]))
                for g, share in width.follows
                if g in keep
            )
            _set(self.modules[width.module], width.attribute, width.value - lost)
        return self.twin


class _Pointwise(nn.Conv2d):
    """A 1×1 convolution as a matrix product over a channels-last image."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch, channels, height, width = input.shape
        pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
        out = F.linear(pixels, weight.reshape(-1, channels), bias)
        return out.view(batch, height, width, -1).permute(0, 3, 1, 2)


class _Depthwise(nn.Conv2d):
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


_FEW = 4  # pixels; beyond, the convolution is quicker


@functools.cache
def _taps(height: int, width: int, rows: int, columns: int, down: int, right: int) -> Tensor:
    """1 where an input pixel meets an output pixel through a tap of the kernel, else 0: (in,
    out y, out x, tap).
    """
    with torch.inference_mode(False), torch.no_grad():
        pixels = torch.eye(height * width).view(-1, 1, height, width)
        kernels = torch.eye(rows * columns).view(-1, 1, rows, columns)
        met = F.conv2d(pixels, kernels, stride=(down, right), padding=(rows // 2, columns // 2))
        return met.permute(0, 2, 3, 1).contiguous()


def _is_centred_depthwise(module: nn.Module) -> bool:
    """Whether the padding is half of an odd kernel, and the kernel dense."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or module.dilation != (1, 1):
        return False
    if (
        isinstance(module.padding, str)
        or not module.groups == module.in_channels == module.out_channels
    ):
        return False
    return all(
        size % 2 and pad == size // 2
        for size, pad in zip(module.kernel_size, module.padding, strict=True)
    )


def _is_pointwise(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and (module.kernel_size, module.stride, module.groups) == ((1, 1), (1, 1), 1)
        and module.padding in ((0, 0), "valid", "same")
    )


def _set(module: nn.Module, attribute: str, value: int) -> None:
    """Set a width; "normalized_shape.0" addresses one entry of a tuple."""
    name, _, entry = attribute.partition(".")
    if entry:
        shape = list(getattr(module, name))
        shape[int(entry)] = value
        setattr(module, name, tuple(shape))
    elif getattr(module, attribute) != value:  # a module's own setattr is slow
        setattr(module, attribute, value)

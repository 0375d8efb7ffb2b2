"""Weights that forward computes from parameters alone are computed once.

    StdConv2d    weight (O, I, h, w) ─ standardise over (I, h, w) ─▶ conv2d
    Conv2d       weight (O, I, h, w), standardised                ─▶ conv2d

Weight standardisation (arXiv 1903.10520), scaled or not, weight norm, spectral norm and any other
parametrisation give in eval mode the same numbers every time. A standardised weight depends on all
inputs of the layer, so that none of them could be cut; a plain weight has no such ties.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from pipeline.channels.rebuild import rebuild
from pipeline.errors import UsageError
from pipeline.models.linear_call import KINDS, LinearCall, NotLinear, linear_call

_NOTE = "_rlp_folded"
_STOCK = frozenset(kind for kind, _ in KINDS.values())
_ROUGH = 1e-3  # relative: float32 in another memory layout rounds differently
Inputs = Tensor | tuple[Any, ...]


class SamePaddedConv2d(nn.Conv2d):
    """A convolution behind TensorFlow's "SAME" padding, whose odd pixel lies at the far side."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return super().forward(F.pad(x, _same_pads(self, tuple(x.shape[-2:]))))


def fold_standardised_weights(model: nn.Module, example_inputs: Inputs | None = None) -> nn.Module:
    """A copy in which layers that compute their weight from parameters hold it instead.

    A layer is folded where it provably does nothing but multiply its input by such a weight, and
    no other module holds its parameters; all others stay as they are. `model` is not changed.

    Args:
        example_inputs: one input or a tuple of them: where the outputs then differ, something
            else uses the layers' own tensors, and the copy has nothing folded.
    """
    # not deepcopy, which refuses the weight that `weight_norm` leaves on a module
    folded = rebuild(model, {}, ())
    paths = _fold(folded, _own_weights(folded))
    if paths and example_inputs is not None and not _same(model, folded, example_inputs):
        return rebuild(model, {}, ())  # the first copy is folded already
    return folded


def fold_layers(model: nn.Module, paths: Iterable[str]) -> nn.Module:
    """Fold these layers of `model` in place: what `folded_layers` said of another one.

    Raises:
        UsageError: there is no such layer, or it cannot be folded.
    """
    paths, modules = tuple(paths), dict(model.named_modules())
    unknown = set(paths) - set(_fold(model, {p: modules[p] for p in paths if p in modules}))
    if unknown:
        raise UsageError(
            f"{min(unknown)}: no layer whose weight is computed from parameters",
            hint="the source of the network has changed; re-make the model",
        )
    return model


def folded_layers(model: nn.Module) -> tuple[str, ...]:
    """Paths of the layers that have been folded in it."""
    return model.__dict__.get(_NOTE, ())


def _fold(model: nn.Module, layers: dict[str, nn.Module]) -> list[str]:
    """Replace what can be, in place; returns the paths of these layers, and notes them."""
    plain: dict[int, nn.Module] = {}
    found = []
    for path, layer in layers.items():
        try:
            plain[id(layer)] = _plain(layer, linear_call(layer))
        except NotLinear:
            continue
        found.append(path)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and id(child) in plain:
                module._modules[name] = plain[id(child)]  # a layer may have several names
    if found:
        model.__dict__[_NOTE] = (*folded_layers(model), *found)
    return found


def _own_weights(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that may compute their weight, and hold parameters that no other module has."""
    holders: dict[int, int] = {}
    for module in model.modules():
        for tensor in module._parameters.values():
            holders[id(tensor)] = holders.get(id(tensor), 0) + 1
    return {
        path: layer
        for path, layer in model.named_modules()
        # "" is the network itself, which no module holds that could hold a plain layer instead
        if path and _may_compute(layer) and all(holders[id(t)] == 1 for t in layer.parameters())
    }


def _may_compute(layer: nn.Module) -> bool:
    # a forward hook may change the output
    if set(layer._modules) - {"parametrizations"} or layer._forward_hooks:
        return False
    hooks = layer._forward_pre_hooks.values()
    # torch's weight and spectral norm are such hooks; others may change the input
    if not all(type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks):
        return False
    return bool(hooks) or type(layer) not in _STOCK


def _plain(layer: nn.Module, call: LinearCall) -> nn.Module:
    """The layer that holds the weight of `call`."""
    options = dict(call.options)
    if call.kind is not nn.Linear:
        options["kernel_size"] = tuple(call.weight.shape[2:])
    sizes = _sizes(call.kind, call.weight, options.get("groups", 1))
    # on no device: what it would draw is thrown away, and moves the random state
    made = call.kind(*sizes, **options, bias=call.bias is not None, device="meta")
    if any(map(any, call.pads)):
        made = _padded(made, call)
    trained = any(tensor.requires_grad for tensor in layer.parameters())
    made.weight = nn.Parameter(call.weight.detach().clone(), trained)
    if call.bias is not None:
        made.bias = nn.Parameter(call.bias.detach().clone(), trained)
    return made.train(layer.training)


def _sizes(kind: type[nn.Module], weight: Tensor, groups: int) -> tuple[int, int]:
    if "Transpose" in kind.__name__:
        return weight.shape[0], weight.shape[1] * groups
    return weight.shape[1] * groups, weight.shape[0]


def _padded(made: nn.Module, call: LinearCall) -> nn.Module:
    if type(made) is not nn.Conv2d or made.padding != (0, 0):
        raise NotLinear
    for pads, edges in zip(call.pads, call.edges, strict=True):
        if list(pads) != _same_pads(made, edges):
            raise NotLinear
    made.__class__ = SamePaddedConv2d
    return made


def _same_pads(conv: nn.Conv2d, edges: tuple[int, ...]) -> list[int]:
    """(left, right, top, bottom)."""
    pads: list[int] = []
    for dim in (1, 0):  # F.pad begins with the last dimension
        size, step = edges[dim], int(conv.stride[dim])
        reach = (int(conv.kernel_size[dim]) - 1) * int(conv.dilation[dim])
        missing = max((-(-size // step) - 1) * step + reach + 1 - size, 0)
        pads += [missing // 2, missing - missing // 2]
    return pads


def _same(model: nn.Module, folded: nn.Module, inputs: Inputs) -> bool:
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    one, other = (_outputs(network, inputs) for network in (model, folded))
    return len(one) == len(other) and all(
        a.shape == b.shape and float((a - b).abs().max()) <= _ROUGH * float(a.abs().max())
        for a, b in zip(one, other, strict=True)
    )


def _outputs(network: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    copy = rebuild(network, {}, ()).eval()  # forward may write into it
    # forward may draw; without `devices=[]` CUDA would be woken
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        found = [leaf for leaf in tree_leaves(copy(*inputs)) if isinstance(leaf, Tensor)]
    return [leaf.double() for leaf in found if leaf.numel()]

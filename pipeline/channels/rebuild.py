"""What cutting is made of: tensors by name, slices of them, a network rebuilt around them."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph, Keep
from pipeline.errors import RlpError, UsageError

_PLAIN = frozenset({type(None), bool, int, float, str, torch.dtype})
_TABLES = frozenset({dict, OrderedDict, list, set})


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by canonical name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def slice_tensors(
    tensors: Mapping[str, torch.Tensor], graph: ChannelGraph, keep: Keep
) -> dict[str, torch.Tensor]:
    """The tensors that a cut changes, by canonical name, without a check of `keep`: one
    index_select for each dimension that loses slices.

    Args:
        tensors: parameters and buffers by canonical name, such as `named_tensors(model)`.
    """
    changed: dict[str, torch.Tensor] = {}
    # a batch norm's tensors all lose the same slices
    indices: dict[tuple[int, bytes, torch.device], torch.Tensor] = {}
    for (name, dim), gone in graph.removed_slices(keep).items():
        tensor = changed.get(name, tensors[name])
        place = tensor.shape[dim], gone.tobytes(), tensor.device
        if place not in indices:
            stay = np.ones(tensor.shape[dim], dtype=bool)
            stay[gone] = False
            indices[place] = torch.from_numpy(np.flatnonzero(stay)).to(tensor.device)
        changed[name] = tensor.detach().index_select(dim, indices[place])
    return changed


def rebuild(
    model: nn.Module, changed: Mapping[str, torch.Tensor], widths: Iterable[tuple[str, str, int]]
) -> nn.Module:
    """A copy of `model` with some tensors replaced by name; sharing is kept.

    Args:
        changed: by canonical name; all other tensors are cloned.
        widths: (module path, attribute, new value), see `set_width`.
    """
    memo: dict[int, Any] = {}  # by id of what stands in the model, so what is shared stays shared
    for name, tensor in named_tensors(model).items():
        data = changed[name] if name in changed else tensor.detach().clone()
        memo[id(tensor)] = (
            nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
        )
    with warnings.catch_warnings():
        # exported programs hold a class that PyTorch has deprecated, and copying makes it anew
        warnings.filterwarnings("ignore", r".*\bLeafSpec\b.* is deprecated", FutureWarning)
        built = _copy_module(model, memo)
    for path, attribute, value in widths:
        set_width(built.get_submodule(path), attribute, value)
    return built


def set_width(module: nn.Module, attribute: str, value: int) -> None:
    """Set a width; "normalized_shape.0" addresses one entry of a tuple or list, "graph.conv2d.6" an
    argument of a node, by position or name, in the graph of a GraphModule.
    """
    name, _, entry = attribute.partition(".")
    if name == "graph" and isinstance(module, torch.fx.GraphModule):
        _set_argument(module, entry, value)
    elif entry:
        entries = getattr(module, name)
        changed = list(entries)
        changed[int(entry)] = value
        setattr(module, name, changed if isinstance(entries, list) else tuple(changed))
    elif getattr(module, attribute) != value:  # a module's own setattr is slow
        setattr(module, attribute, value)


def _set_argument(module: torch.fx.GraphModule, place: str, value: int) -> None:
    name, _, argument = place.rpartition(".")
    node = next(node for node in module.graph.nodes if node.name == name)
    if argument.isdigit():
        node.update_arg(int(argument), value)
    else:
        node.update_kwarg(argument, value)
    module.recompile()


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """As copy.deepcopy with this memo, several times faster for modules that do not copy
    themselves.
    """
    if id(module) in memo:
        return memo[id(module)]
    kind = type(module)
    if _copies_itself(kind):
        return copy.deepcopy(module, memo)
    built = memo[id(module)] = kind.__new__(kind)
    for name, value in module.__dict__.items():
        try:
            built.__dict__[name] = _copy_attribute(name, value, memo)
        except (TypeError, RuntimeError) as error:
            raise _uncopyable(kind, name, value, error) from error
    return built


def _uncopyable(kind: type, name: str, value: Any, error: Exception) -> RlpError:
    if isinstance(error, RlpError):  # of a module inside
        return error
    return UsageError(
        f"{kind.__name__}.{name} cannot be copied: {str(error).splitlines()[0]}",
        hint=f"make it in forward, or give {type(value).__name__} a __deepcopy__",
    )


def _copies_itself(kind: type) -> bool:
    # such a class knows about itself what no loop over attributes can
    return (
        hasattr(kind, "__deepcopy__")
        or kind.__reduce_ex__ is not object.__reduce_ex__
        or "__getstate__" in vars(kind)
    )


def _copy_attribute(name: str, value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in _TABLES:
        # most of what a module holds are empty tables of hooks, and deepcopy is slow
        if not value:
            return kind()
        if name == "_modules":
            return {
                key: None if child is None else _copy_module(child, memo)
                for key, child in value.items()
            }
        if name in ("_parameters", "_buffers"):
            return {
                key: None if tensor is None else memo[id(tensor)] for key, tensor in value.items()
            }
    elif kind is tuple:
        if all(type(item) in _PLAIN for item in value):  # kernel sizes
            return value
    elif name == "_compiled_call_impl":  # of module.compile(): it calls the module it was made for
        return None
    elif isinstance(value, torch.Tensor) and not value.is_leaf and id(value) not in memo:
        if id(value._base) in memo:
            raise RuntimeError("it is a view of a parameter")
        return value.detach().clone()  # what a forward left there, such as weight_norm's weight
    return copy.deepcopy(value, memo)

"""What cutting is made of: tensors by name, slices of them, a network rebuilt around them."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from pipeline.channels.graph import ChannelGraph, Keep
from pipeline.channels.named import named_tensors as named_tensors
from pipeline.errors import RlpError, UsageError

_PLAIN = frozenset({type(None), bool, int, float, str, torch.dtype})
_TABLES = frozenset({dict, OrderedDict, list, set})


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
    model: nn.Module,
    changed: Mapping[str, torch.Tensor],
    widths: Iterable[tuple[str, str, int]],
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """A copy of `model` with some tensors replaced by name; sharing is kept.

    Args:
        changed: by canonical name; all other tensors are cloned.
        widths: (module path, attribute, new value), see `set_widths`.
        tensors: `named_tensors(model)`, where they are known.
    """
    memo: dict[int, Any] = {}  # by id of what stands in the model, so what is shared stays shared
    for name, tensor in (tensors or named_tensors(model)).items():
        data = changed[name] if name in changed else tensor.detach().clone()
        memo[id(tensor)] = (
            nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
        )
    with warnings.catch_warnings():
        # exported programs hold a class that PyTorch has deprecated, and copying makes it anew
        warnings.filterwarnings("ignore", r".*\bLeafSpec\b.* is deprecated", FutureWarning)
        built = _copy_module(model, memo)
    known: dict[str, nn.Module] = {}
    for path, _, _ in (widths := list(widths)):
        if path not in known:
            known[path] = built.get_submodule(path)
    set_widths((known[path], attribute, value) for path, attribute, value in widths)
    return built


def set_widths(widths: Iterable[tuple[nn.Module, str, int]]) -> None:
    """Set attributes of modules; "normalized_shape.0" addresses one entry of a tuple or list,
    "graph.conv2d.6" an argument of a node, by position or name, in the graph of a GraphModule, and
    "graph.view.1.2" one entry of it.
    """
    graphs: dict[fx.GraphModule, dict[str, int]] = {}
    for module, attribute, value in widths:
        name, _, entry = attribute.partition(".")
        if name == "graph" and isinstance(module, fx.GraphModule):
            graphs.setdefault(module, {})[entry] = value
        elif entry:
            setattr(module, name, _with_entry(getattr(module, name), int(entry), value))
        elif getattr(module, attribute) != value:  # a module's own setattr is slow
            setattr(module, attribute, value)
    for graph_module, numbers in graphs.items():
        nodes = {node.name: node for node in graph_module.graph.nodes}
        for place, value in numbers.items():
            _set_argument(nodes, place, value)
        graph_module.recompile()


def _with_entry(entries: Sequence[int], entry: int, value: int) -> Sequence[int]:
    changed = [*entries[:entry], value, *entries[entry + 1 :]]
    return changed if isinstance(entries, list) else tuple(changed)


def _set_argument(nodes: Mapping[str, fx.Node], place: str, value: Any) -> None:
    name, argument, *entry = place.split(".")
    node = nodes[name]
    key = int(argument) if argument.isdigit() else argument
    if entry:
        entries = node.args[key] if isinstance(key, int) else node.kwargs[key]
        value = _with_entry(entries, int(entry[0]), value)  # type: ignore[arg-type]
    if isinstance(key, int):
        node.update_arg(key, value)
    else:
        node.update_kwarg(key, value)


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """As copy.deepcopy with this memo, several times faster for modules that do not copy
    themselves.
    """
    if id(module) in memo:
        return memo[id(module)]
    kind = type(module)
    if _copies_itself(kind):
        built = copy.deepcopy(module, memo)
        if isinstance(module, fx.GraphModule):
            _keep_plain(module, built)
        return built
    built = memo[id(module)] = kind.__new__(kind)
    for name, value in module.__dict__.items():
        known = type(value)
        # most of what a module holds: numbers, and empty tables of hooks
        if known in _PLAIN:
            built.__dict__[name] = value
        elif known in _TABLES and not value:
            built.__dict__[name] = known()
        else:
            try:
                built.__dict__[name] = _copy_attribute(name, value, memo)
            except (TypeError, RuntimeError) as error:
                raise _uncopyable(kind, name, value, error) from error
    return built


def _keep_plain(module: fx.GraphModule, built: nn.Module) -> None:
    """Tensor attributes of a GraphModule have become buffers of its copy; make them attributes."""
    for path, one in built.named_modules():
        known = module.get_submodule(path)._buffers
        for name in [name for name in one._buffers if name not in known]:
            one.__dict__[name] = one._buffers.pop(name)


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
    if kind in _TABLES and name == "_modules":
        return {
            key: None if child is None else _copy_module(child, memo)
            for key, child in value.items()
        }
    if kind in _TABLES and name in ("_parameters", "_buffers"):
        return {key: None if tensor is None else memo[id(tensor)] for key, tensor in value.items()}
    if kind in (tuple, list) and id(value) not in memo:
        if all(type(item) in _PLAIN for item in value):  # kernel sizes
            return value if kind is tuple else memo.setdefault(id(value), list(value))
    elif name == "_compiled_call_impl":  # of module.compile(): it calls the module it was made for
        return None
    elif isinstance(value, torch.Tensor) and not value.is_leaf and id(value) not in memo:
        if id(value._base) in memo:
            raise RuntimeError("it is a view of a parameter")
        return value.detach().clone()  # what a forward left there, such as weight_norm's weight
    return copy.deepcopy(value, memo)

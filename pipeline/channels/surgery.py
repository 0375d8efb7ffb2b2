"""Taking units out of tensors and modules: what tracing needs to try a cut and what
`stages.prune` is built on.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.channels.graph import ChannelGraph

Keep = Mapping[str, Sequence[int]]


def removed_slices(graph: ChannelGraph, keep: Keep) -> dict[tuple[str, int], np.ndarray]:
    """{(parameter, dim): indices to take out}; groups that `keep` does not name stay whole."""
    removed: dict[tuple[str, int], list[np.ndarray]] = {}
    for group_id, kept in keep.items():
        group = graph[group_id]
        if len(kept) == group.size:
            continue
        gone = np.ones(group.size, dtype=bool)
        gone[np.asarray(kept, dtype=np.int64)] = False
        for name, dim, table in graph.tables[group_id]:
            removed.setdefault((name, dim), []).append(table[gone].reshape(-1))
    return {place: np.concatenate(parts) for place, parts in removed.items()}


def slice_tensors(
    tensors: Mapping[str, torch.Tensor], graph: ChannelGraph, keep: Keep
) -> dict[str, torch.Tensor]:
    """The tensors that a cut changes, by canonical name: one index_select for each dimension that
    loses slices.

    `tensors` holds parameters and buffers by name, such as a state dict.
    """
    changed: dict[str, torch.Tensor] = {}
    indices: dict[
        tuple[int, bytes, torch.device], torch.Tensor
    ] = {}  # a batch norm's tensors all lose the same
    for (name, dim), gone in removed_slices(graph, keep).items():
        tensor = changed.get(name, tensors[name])
        place = tensor.shape[dim], gone.tobytes(), tensor.device
        if place not in indices:
            stay = np.ones(tensor.shape[dim], dtype=bool)
            stay[gone] = False
            indices[place] = torch.from_numpy(np.flatnonzero(stay)).to(tensor.device)
        changed[name] = tensor.detach().index_select(dim, indices[place])
    return changed


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by canonical name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def rebuild(
    model: nn.Module, changed: Mapping[str, torch.Tensor], widths: Iterable[tuple[str, str, int]]
) -> nn.Module:
    """A copy of `model` with some tensors replaced by name; every tensor is written once, sharing
    is kept.

    `widths` are (module path, attribute, new value); "normalized_shape.0" addresses one entry of a
    tuple.
    """
    memo: dict[int, Any] = {}
    for name, tensor in named_tensors(model).items():
        data = changed[name] if name in changed else tensor.detach().clone()
        memo[id(tensor)] = (
            nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
        )
    built = _copy_module(model, memo)
    modules = dict(built.named_modules(remove_duplicate=False))
    for path, attribute, value in widths:
        name, _, entry = attribute.partition(".")
        if entry:
            shape = list(getattr(modules[path], name))
            shape[int(entry)] = value
            setattr(modules[path], name, tuple(shape))
        else:
            setattr(modules[path], attribute, value)
    return built


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """As copy.deepcopy with this memo, several times faster for modules that do not copy
    themselves.
    """
    kind = type(module)
    if id(module) in memo:
        return memo[id(module)]
    if (
        hasattr(kind, "__deepcopy__")
        or kind.__reduce_ex__ is not object.__reduce_ex__
        or "__getstate__" in vars(kind)
    ):
        return copy.deepcopy(module, memo)
    built = memo[id(module)] = kind.__new__(kind)
    for name, value in module.__dict__.items():
        if name == "_modules":
            copied: Any = {
                key: None if child is None else _copy_module(child, memo)
                for key, child in value.items()
            }
        elif name in ("_parameters", "_buffers"):
            copied = {
                key: None if tensor is None else memo[id(tensor)] for key, tensor in value.items()
            }
        elif value is None or type(value) in (bool, int, float, str, torch.dtype):
            copied = value
        elif type(value) in (dict, OrderedDict, list, set) and not value:
            copied = type(value)()
        else:
            copied = copy.deepcopy(value, memo)
        built.__dict__[name] = copied
    return built


def cut(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """A new, narrower network; the plan behind `keep` is not checked here."""
    changed = slice_tensors(named_tensors(model), graph, keep)
    return rebuild(
        model, changed, graph.widths_after({group: len(kept) for group, kept in keep.items()})
    )


def silence(model: nn.Module, graph: ChannelGraph, keep: Keep) -> nn.Module:
    """The same-shaped network with every parameter slice of the removed units at zero; buffers
    stay.
    """
    tensors = dict(model.named_parameters())
    changed: dict[str, torch.Tensor] = {}
    for (name, dim), gone in removed_slices(graph, keep).items():
        if name in tensors:
            tensor = changed.setdefault(name, tensors[name].detach().clone())
            tensor.index_fill_(dim, torch.from_numpy(gone).to(tensor.device), 0)
    return rebuild(model, changed, ())

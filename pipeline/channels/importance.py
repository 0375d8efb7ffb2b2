"""Scores of parameter elements, added up over the slices that a unit owns.

Criteria stand in `stages.prune.importance`; the L2 norm is here, because a plan falls back on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.channels.group import UnitSlices

Slices = Mapping[str, Sequence[UnitSlices]]
"""{group id: a table for each member}."""

Score = Callable[[Tensor], Tensor]
"""An element-wise function."""

# elements scored at once: they stay in the processor's cache while they are added up
_BLOCK = 1 << 18


def unit_sums(slices: Slices, tensors: Mapping[str, Tensor], score: Score) -> dict[str, Tensor]:
    """Sum of `score` over all slices of each unit: {group id: (size,) float64 on the CPU}.

    Args:
        slices: what each unit owns, `ChannelGraph.slices`.
        tensors: of the shapes of the parameters they are named after; a group none of whose slices
            is among them is left out.
    """
    dims: dict[str, set[int]] = {}
    for table in itertools.chain.from_iterable(slices.values()):
        if table.parameter in tensors:
            dims.setdefault(table.parameter, set()).add(table.dim)
    sums = {
        (name, dim): total
        for name, along in dims.items()
        for dim, total in _sums(tensors[name].detach(), score, along).items()
    }
    totals = {group: _total(tables, sums) for group, tables in slices.items()}
    return {group: total for group, total in totals.items() if total is not None}


def weight_norms(model: nn.Module, slices: Slices) -> dict[str, Tensor]:
    """L2 norm of the weights that produce or read each unit: {group id: (size,) float64}; zeros
    for groups without weights.
    """
    sums = unit_sums(slices, weights(model), torch.square)
    return {
        group: sums[group].sqrt()
        if group in sums
        else torch.zeros(len(tables[0].indices), dtype=torch.float64)
        for group, tables in slices.items()
    }


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Convolution and linear weights by name: the parameters with more than one dimension."""
    return {name: tensor for name, tensor in model.named_parameters() if tensor.dim() > 1}


def _total(tables: Sequence[UnitSlices], sums: Mapping[tuple[str, int], Tensor]) -> Tensor | None:
    """Of every unit of one group; None when none of its slices is scored."""
    total = None
    for table in tables:
        scored = sums.get((table.parameter, table.dim))
        if scored is None:
            continue
        slices = scored[torch.from_numpy(table.indices)]
        # most units own one slice of a tensor, and there is nothing to add up
        part = slices[:, 0] if table.per_unit == 1 else slices.sum(1)
        total = part if total is None else total + part
    return total


def _sums(tensor: Tensor, score: Score, dims: set[int]) -> dict[int, Tensor]:
    """Scores summed over all dimensions but one, for each of `dims`: float64 on the CPU."""
    if tensor.dim() > 1 and dims <= {0, 1}:
        return _rows_and_columns(tensor, score)
    scored = score(tensor).double().cpu()
    others = {dim: [other for other in range(scored.dim()) if other != dim] for dim in dims}
    return {dim: scored.sum(beside) if beside else scored for dim, beside in others.items()}


def _rows_and_columns(weight: Tensor, score: Score) -> dict[int, Tensor]:
    """Both dimensions of a weight (out, in, …) from one pass: in float32 within blocks of rows,
    float64 beyond.
    """
    count = weight.shape[0]
    step = max(1, _BLOCK * count // max(weight.numel(), 1))
    rows, columns = [], torch.zeros(weight.shape[1:], dtype=torch.float64, device=weight.device)
    for block in weight.split(step):
        # half precision has 8 to 11 bits: too few to add up
        scored = score(block if block.dtype.itemsize >= 4 else block.float())
        rows.append(scored.flatten(1).sum(1))
        columns += scored.sum(0)
    columns = columns.flatten(1).sum(1) if columns.dim() > 1 else columns
    return {0: torch.cat(rows).double().cpu(), 1: columns.cpu()}

"""Sizes that forward may have hard-coded: cut the units they concern and see whether the network still fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.trace.capture import mode
from stages.trace.graph import ChannelGraph
from stages.trace.labelling import Pass
from stages.trace.labels import Settled
from stages.trace.slices import cut, silence

NEXT_CHOICE = {"inner": "outer", "outer": "fixed"}


def doubtful(state: Pass, settled: Settled, graph: ChannelGraph) -> dict[str, set[str]]:
    """{source line: ids of prunable groups whose units pass it}, lines in the order of the trace."""
    owner = np.zeros(len(settled.roots), dtype=np.int64) - 1
    groups = graph.prunable
    for number, group in enumerate(groups):
        for name, dim, indices in group.members:
            labels = state.labels.slots[name, dim][list(indices)]
            owner[settled.roots[labels[labels > 0]]] = number
    found: dict[str, set[str]] = {}
    for line, vectors in state.labels.unproven.items():
        labels = np.concatenate(vectors)
        numbers = np.unique(owner[settled.roots[labels[labels > 0]]])
        ids = {groups[number].id for number in numbers.tolist() if number >= 0}
        if ids and state.choices.get(line) != "fixed":
            found[line] = ids
    return found


def fits(model: nn.Module, graph: ChannelGraph, ids: Iterable[str], inputs: Sequence[Any]) -> bool:
    """True when the network runs with half of these groups gone and equals the silenced one."""
    generator = np.random.default_rng(0)
    keep = {}
    for group_id in sorted(ids):
        size = graph[group_id].size
        keep[group_id] = np.sort(generator.permutation(size)[: (size + 1) // 2]).tolist()
    noise = torch.Generator().manual_seed(0)
    inputs = [_noise(item, noise) for item in inputs]
    try:
        with torch.no_grad(), mode(model, False), _random_state():
            small, reference = cut(model, graph, keep)(*inputs), silence(model, graph, keep)(*inputs)
    except Exception:
        return False
    return all(_close(a, b) for a, b in zip(tensors_of(small), tensors_of(reference), strict=True))


def tensors_of(output: Any) -> list[torch.Tensor]:
    """All tensors of a nested model output."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return [tensor for item in output for tensor in tensors_of(item)] if isinstance(output, (list, tuple)) else []


def _noise(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator).to(value)
    return value


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(other.detach().abs().max()) if other.numel() else 0.0
    tolerance = 1e-9 if one.dtype == torch.float64 else 1e-3
    return bool(((one - other).abs() <= tolerance * max(scale, 1e-12)).all())


class _random_state:
    """Leave torch's generator as it was."""

    def __enter__(self) -> None:
        self.state = torch.get_rng_state()

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.state)

"""Which channels of a layer's output, and of its input, are left after a cut."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.surgery import Keep, removed_slices
from stages.reconstruct.forward import Forward, Use


def kept_outputs(graph: ChannelGraph, forward: Forward, keep: Keep) -> dict[str, Tensor]:
    """{weight or running mean: output channels that stay}, ascending; only where some go."""
    removed = removed_slices(graph, keep)
    found = {}
    for use in forward.uses:
        shape = graph.parameters[use.name]
        gone = {
            dim: removed[use.name, dim] for dim in range(len(shape)) if (use.name, dim) in removed
        }
        kept = _transposed(use, shape, gone) if use.kind == "transposed" else _left(shape, 0, gone)
        if kept is not None:
            found[use.name] = torch.from_numpy(kept)
    return found


def _left(shape: tuple[int, ...], dim: int, gone: dict[int, np.ndarray]) -> np.ndarray | None:
    if dim not in gone:
        return None
    stay = np.ones(shape[dim], dtype=bool)
    stay[gone[dim]] = False
    return np.flatnonzero(stay)


def _transposed(
    use: Use, shape: tuple[int, ...], gone: dict[int, np.ndarray]
) -> np.ndarray | None:
    """A weight (in, out / groups): every group loses the same outputs, and one without inputs
    loses all.
    """
    if not gone:
        return None
    inputs = _left(shape, 0, gone)
    outputs = _left(shape, 1, gone)
    each = np.arange(shape[1]) if outputs is None else outputs
    share = shape[0] // use.groups
    alive = np.arange(use.groups) if inputs is None else np.unique(inputs // share)
    return (alive[:, None] * shape[1] + each).reshape(-1)

"""Which output channels of a layer are left after a cut."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.channels.graph import ChannelGraph, Keep
from stages.reconstruct.forward import Forward, Use


def kept_outputs(graph: ChannelGraph, forward: Forward, keep: Keep) -> dict[str, Tensor]:
    """{weight or running mean: output channels that stay}, ascending; only where some go."""
    removed = graph.removed_slices(keep)
    found = {}
    for use in forward.uses:
        shape = graph.parameters[use.name]
        gone = [removed.get((use.name, dim)) for dim in range(min(2, len(shape)))]
        if use.kind == "transposed" and any(part is not None for part in gone):
            found[use.name] = _of_transposed(use, shape, *gone)
        elif use.kind != "transposed" and gone[0] is not None:
            found[use.name] = torch.from_numpy(_left(shape[0], gone[0]))
    return found


def _left(size: int, gone: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return np.arange(size) if gone is None else np.setdiff1d(np.arange(size), gone)


def _of_transposed(
    use: Use,
    shape: tuple[int, ...],
    inputs_gone: NDArray[np.int64] | None = None,
    outputs_gone: NDArray[np.int64] | None = None,
) -> Tensor:
    """A weight (in, out / groups): each group loses the same outputs, one without inputs loses
    all.
    """
    each, share = _left(shape[1], outputs_gone), shape[0] // use.groups
    alive = np.unique(_left(shape[0], inputs_gone) // share)
    return torch.from_numpy((alive[:, None] * shape[1] + each).reshape(-1))

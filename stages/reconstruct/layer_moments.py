"""What one layer sees, as moments: enough to make up for any of its inputs that go.

Of the inputs x of a layer let k stay and r go, and let S be their covariance. The change D of the
weights that stay which best makes up for W_r x_r solves (S_kk + λ) Dᵀ = S_kr W_rᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.channels.branch import Branch
from stages.reconstruct.forward import Use
from stages.reconstruct.least_squares import System, best_ridge
from stages.reconstruct.operators import LinearMap


@dataclass(frozen=True)
class LayerMoments:
    """What one layer of the original sees.

    Attributes:
        op: the layer, its input emptied.
        square: covariance (groups, u, u) of its unknowns; None where `rows` take less memory.
        rows: (groups, n, u), centred; None where `square` is there.
        mean: (groups, u); zero where no bias or batch norm could take up a difference.
        ridge: as a multiple of the mean of the diagonal.
    """

    use: Use
    op: LinearMap
    square: Tensor | None
    rows: Tensor | None
    mean: Tensor
    ridge: float

    def solve(self, stay: Tensor, gone: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (groups, out, kept), and by how much the mean of the output (groups, out) falls.

        Args:
            stay, gone: unknowns. matrix: (groups, out, u), the original's weights of the outputs
            that stay.
        """
        lost = matrix[..., gone]
        step = self._system(stay, gone, lost).solve(self.ridge).mT
        fall = lost @ self.mean[..., gone, None] - step @ self.mean[..., stay, None]
        return matrix[..., stay] + step, fall[..., 0]

    def covariance(self) -> Tensor:
        """(groups, u, u), computed where only the rows were kept."""
        if self.square is not None:
            return self.square
        assert self.rows is not None
        return self.rows.mT @ self.rows / self.rows.shape[1]

    def unknowns(self, channels: NDArray[np.int64]) -> Tensor:
        """Unknowns (ascending) of these input channels of each group."""
        into = self.mean.shape[-1] // self.op.taps
        taps = torch.arange(self.op.taps)[:, None] * into
        return (taps + torch.from_numpy(channels)).flatten().to(self.mean.device)

    def _system(self, stay: Tensor, gone: Tensor, lost: Tensor) -> System:
        if self.square is None:
            assert self.rows is not None
            return System.of(self.rows[..., stay], self.rows[..., gone] @ lost.mT)
        block = self.square[:, stay]
        return System(block[..., stay], block[..., gone] @ lost.mT)


@dataclass(frozen=True)
class Behind:
    """Layers behind some branches that have gone, at the size that they have with them.

    Attributes:
        tensors: those that change, by canonical name. layers: what each refitted layer sees then.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, LayerMoments] = field(default_factory=dict)


NOTHING = Behind()


class Refits(Protocol):
    """Layers behind branches that go, refitted; see `BranchRefits`."""

    @property
    def names(self) -> Sequence[str]:
        """Canonical names of all tensors that may change."""

    def without(self, going: Sequence[Branch]) -> Behind:
        """What layers become when these branches go."""


def moments_of(use: Use, op: LinearMap, x: Tensor, held: int) -> LayerMoments:
    """From rows (groups, n, u), which are overwritten; the last `held` choose the ridge."""
    mean = x.mean(1) if use.free_mean else torch.zeros_like(x[:, 0])
    x -= mean[:, None]
    n, unknowns = x.shape[1:]
    # a slice alone would keep the whole activation in memory
    bare = replace(op, input=op.input[:0].clone())
    square = x.mT @ x / n if unknowns <= n else None
    ridge = _half_cut_ridge(op, x, held)
    return LayerMoments(use, bare, square, None if unknowns <= n else x, mean, ridge)


def _half_cut_ridge(op: LinearMap, x: Tensor, held: int) -> float:
    """The ridge that does best on held-out rows when every other input channel goes."""
    into = x.shape[-1] // op.taps
    channel = torch.arange(x.shape[-1], device=x.device) % into
    gone = channel % 2 == 1
    rest = x[..., gone] @ op.matrix()[..., gone].mT
    return best_ridge(x[..., ~gone], rest, held)[1]

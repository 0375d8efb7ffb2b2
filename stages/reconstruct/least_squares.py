"""Ridge regression towards the weights that are there, the ridge chosen on held-out rows.

    minimise  ‖R − D X‖² / n + λ ‖D‖²,   R = Y − W X,   new weights W + D

solved on second moments where there are more rows than unknowns, on products of rows elsewhere
(the same solution, by the smaller system). λ is a multiple of the mean of XᵀX's diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
START = RIDGES.index(1e-2)
EXACT = 1e-12  # and for float64, where nothing is lost by it
GAIN = 1e-4  # a relative fall of the held-out error that is worth other weights


@dataclass(frozen=True)
class Fitted:
    """Outcome for one layer; errors are held-out squares over the variance of the wanted output.

    Attributes:
        matrix: (groups, out, unknowns). shift: (groups, out), to be added to the bias.
        ridge: λ as a multiple of the mean diagonal; infinite where only the mean was corrected.
        reason: why the weights stayed; empty when they did not.
    """

    matrix: Tensor
    shift: Tensor
    before: float
    after: float
    ridge: float
    reason: str = ""


def fit(x: Tensor, y: Tensor, matrix: Tensor, held: int, free_mean: bool) -> Fitted:
    """New weights for `matrix` (groups, out, unknowns), so that x times it comes near y.

    Args:
        x: rows (groups, n, unknowns); overwritten. y: what they should give (groups, n, out).
        held: how many of the last rows choose the ridge and judge the result.
        free_mean: whether a bias, or a batch norm behind, takes any constant difference.
    """
    stay = torch.zeros_like(matrix[..., 0])
    rest = y - x @ matrix.mT
    scale = _spread(y[:, -held:])
    before = _energy(rest[:, -held:]) / scale
    if not (bool(torch.isfinite(x).all()) and bool(torch.isfinite(rest).all())):
        reason = "what it sees or should give is not finite"
        return Fitted(matrix, stay, before, before, 0.0, reason)
    rows = x.shape[1] - held
    shift = rest[:, :rows].mean(1) if free_mean else stay
    if free_mean:
        x -= (centre := x[:, :rows].mean(1, keepdim=True))
        rest = rest - shift[:, None]
    else:
        centre = torch.zeros_like(x[:, :1])
    seen, unseen = (x[:, :rows], rest[:, :rows]), (x[:, rows:], rest[:, rows:])
    best = _energy(unseen[1]) / scale
    after, ridge = _choose(System.of(*seen), *unseen, scale)
    if not after < best:  # NaN counts as worse
        if best < before * (1 - GAIN):
            return Fitted(matrix, shift, before, best, float("inf"))
        return Fitted(matrix, stay, before, before, 0.0, "its held-out error does not fall")
    if not after < before * (1 - GAIN):
        return Fitted(matrix, stay, before, before, 0.0, "its held-out error does not fall")
    drift, off = x.mean(1, keepdim=True), rest.mean(1, keepdim=True)
    if free_mean:
        x -= drift
        rest = rest - off
    else:
        drift, off = torch.zeros_like(drift), torch.zeros_like(off)
    step = System.of(x, rest).solve(ridge).mT
    if not bool(torch.isfinite(step).all()):
        return Fitted(matrix, stay, before, before, 0.0, "its system cannot be solved")
    total = shift + off[:, 0] - (step @ (centre + drift).mT)[..., 0]
    return Fitted(matrix + step, total, before, after, ridge)


def _choose(system: System, x: Tensor, rest: Tensor, scale: float) -> tuple[float, float]:
    """Held-out error and ridge where it is least: a walk from the middle of the list."""
    ridges = RIDGES if x.dtype is not torch.float64 else (EXACT, *RIDGES)
    errors: dict[int, float] = {}

    def error(at: int) -> float:
        if at not in errors:
            errors[at] = _energy(rest - x @ system.solve(ridges[at])) / scale
            errors[at] = errors[at] if errors[at] == errors[at] else float("inf")
        return errors[at]

    at = ridges.index(1e-2)
    for way in (-1, 1):
        while 0 <= at + way < len(ridges) and error(at + way) < error(at):
            at += way
    return error(at), ridges[at]


@dataclass(frozen=True)
class System:
    """Second moments (groups, u, u) and right-hand sides (groups, u, out); or, with `rows`,
    products of rows (groups, n, n) and what each should give (groups, n, out).
    """

    square: Tensor
    right: Tensor
    rows: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, rest: Tensor) -> System:
        """The smaller of the two systems of rows x (groups, n, u)."""
        n, unknowns = x.shape[1:]
        if n < unknowns:
            return cls(x @ x.mT / n, rest / n, x)
        return cls(x.mT @ x / n, x.mT @ rest / n)

    def solve(self, ridge: float) -> Tensor:
        """(groups, unknowns, out); float64 where float32 fails; NaN where that fails as well."""
        unknowns = self.square.shape[-1] if self.rows is None else self.rows.shape[-1]
        trace = self.square.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float64)
        load = ridge * trace / unknowns
        found = _cholesky(self.square, self.right, load)
        if not bool(torch.isfinite(found).all()) and self.square.dtype is not torch.float64:
            wide = _cholesky(self.square.double(), self.right.double(), load)
            found = wide.to(self.square.dtype)
        return found if self.rows is None else self.rows.mT @ found


def _cholesky(square: Tensor, right: Tensor, ridge: Tensor) -> Tensor:
    loaded = square.clone()
    loaded.diagonal(dim1=-2, dim2=-1).add_(ridge.to(square.dtype)[:, None])
    factor, failed = torch.linalg.cholesky_ex(loaded)
    found = torch.cholesky_solve(right, factor)
    return torch.where((failed > 0)[:, None, None], torch.nan, found)


def _energy(values: Tensor) -> float:
    return float(values.square().sum(dtype=torch.float64))


def _spread(values: Tensor) -> float:
    """Sum of squares about the mean of each output; tiny where nothing varies."""
    centred = values - values.mean(1, keepdim=True)
    return max(_energy(centred), torch.finfo(values.dtype).tiny)

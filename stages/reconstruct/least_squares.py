"""Ridge regression towards the weights that are there, the ridge chosen on held-out rows.

    minimise  ‖R − D X‖² / n + λ ‖D‖²,   R = Y − W X,   new weights W + D

is solved on second moments where there are more rows than unknowns, on products of rows elsewhere:
the same solution, by the smaller system. λ is a multiple of the mean of the moments' diagonal. The
multiple that does best on the held-out rows is taken, and the system solved again on all rows; the
old weights stay where none does better than they.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
EXACT = 1e-12  # one more for float64, which bears it
GAIN = 1e-4  # least relative fall of the held-out error that is worth other weights
SAME = 1e-10  # an error that is round-off


@dataclass(frozen=True)
class Fitted:
    """Outcome for one layer; errors are held-out squares over the variance of what is wanted, None
    where that is not finite.

    Attributes:
        matrix: (groups, out, unknowns). shift: (groups, out) for the bias; None: none. ridge: λ as
        a multiple of the mean diagonal. reason: why the weights stayed.
    """

    matrix: Tensor
    before: float | None
    after: float | None
    shift: Tensor | None = None
    ridge: float = 0.0
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether the weights are new ones."""
        return not self.reason


def fit(
    x: Tensor,
    y: Tensor,
    matrix: Tensor,
    held: int,
    *,
    free_mean: bool,
    fixed: str = "",
    only_mean: bool = False,
) -> Fitted:
    """New weights for `matrix` (groups, out, unknowns), so that x times it comes near y.

    Args:
        x: rows (groups, n, unknowns); overwritten. y: what they should give, (groups, n, out).
        held: how many of the last rows choose the ridge and judge.
        free_mean: whether a bias, or a batch norm behind, takes any constant difference.
        fixed: why the weights must stay whatever the rows say.
        only_mean: leave the weights, and let the mean alone follow.
    """
    rest = y - x @ matrix.mT
    scale = _squares(y[:, -held:] - y[:, -held:].mean(1, keepdim=True))
    # a constant output has no variance
    before = _squares(rest[:, -held:]) / max(scale, torch.finfo(y.dtype).tiny)
    if not bool(torch.isfinite(x).all() and torch.isfinite(rest).all()):
        return Fitted(matrix, None, None, reason="what it sees, or should give, is not finite")
    if fixed or before <= SAME:
        return Fitted(matrix, before, before, reason=fixed or "it gives what the original gives")
    # by the mean of the rows that are fitted: held-out rows must not have a say in it
    centre = _centre(x, held) if free_mean else torch.zeros_like(x[:, :1])
    shift = _centre(rest, held) if free_mean else torch.zeros_like(rest[:, :1])
    error, ridge = best_ridge(x, rest, held) if not only_mean else (before * scale, 0.0)
    after = error / scale if scale else error
    if not after < before * (1 - GAIN):  # nor where it is NaN
        level = _squares(rest[:, -held:]) / scale if scale else before
        return _only_mean(matrix, before, level, shift)
    if free_mean:
        # the last fit sees all rows
        centre, shift = centre + _centre(x, 0), shift + _centre(rest, 0)
    step = System.of(x, rest).solve(ridge).mT
    if not bool(torch.isfinite(step).all()):
        return _only_mean(matrix, before, before, shift)
    total = (shift - centre @ step.mT)[:, 0]
    return Fitted(matrix + step, before, after, total, ridge)


def _only_mean(matrix: Tensor, before: float, after: float, shift: Tensor) -> Fitted:
    """The old weights, and the new mean if that alone makes the error fall."""
    reason = "its held-out error does not fall"
    if after < before * (1 - GAIN):
        return Fitted(matrix, before, after, shift[:, 0], reason=reason + " by other weights")
    return Fitted(matrix, before, before, reason=reason)


def _centre(values: Tensor, held: int) -> Tensor:
    """Take the mean of all but the last `held` rows off all, in place; returns it."""
    mean = values[:, : values.shape[1] - held].mean(1, keepdim=True)
    values -= mean
    return mean


def best_ridge(x: Tensor, rest: Tensor, held: int) -> tuple[float, float]:
    """Least sum of squares on the held-out rows, and its ridge: a walk from the middle of the
    list.
    """
    ridges = RIDGES if x.dtype is not torch.float64 else (EXACT, *RIDGES)
    system = System.of(x[:, :-held], rest[:, :-held])
    unseen, wanted = x[:, -held:], rest[:, -held:]
    errors: dict[int, float] = {}

    def error(at: int) -> float:
        if at not in errors:
            found = _squares(wanted - unseen @ system.solve(ridges[at]))
            # `NaN < x` is false: it would end the walk
            errors[at] = found if found == found else float("inf")
        return errors[at]

    at = ridges.index(1e-2)  # does well on a thousand images
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
        # by the unknowns for products of rows too: XXᵀ and XᵀX have the same trace
        load = ridge * trace / unknowns
        found = _cholesky(self.square, self.right, load)
        if not bool(torch.isfinite(found).all()) and self.square.dtype is not torch.float64:
            wide = _cholesky(self.square.double(), self.right.double(), load)
            found = wide.to(self.square.dtype)
        return found if self.rows is None else self.rows.mT @ found


def _cholesky(square: Tensor, right: Tensor, load: Tensor) -> Tensor:
    loaded = square.clone()
    loaded.diagonal(dim1=-2, dim2=-1).add_(load.to(square.dtype)[:, None])
    # no exception: of many groups one alone may fail
    factor, failed = torch.linalg.cholesky_ex(loaded)
    found = torch.cholesky_solve(right, factor)
    return torch.where((failed > 0)[:, None, None], torch.nan, found)


def _squares(values: Tensor) -> float:
    return float(values.double().square().sum())

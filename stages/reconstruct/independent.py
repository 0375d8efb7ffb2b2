"""The independent form: moments of the original's own activations, taken once and sliced for every
candidate.

Of the inputs x of a layer let k stay and r go, and let S be their covariance. The change D of the
weights that stay which best makes up for W_r x_r solves (S_kk + λ) Dᵀ = S_kr W_rᵀ. No layer knows
of the errors of earlier ones, so this is weaker than the sequential form, and a hundred times
cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.channels.branch import Branch, put_in_place
from pipeline.channels.graph import ChannelGraph, Keep
from pipeline.channels.rebuild import named_tensors, rebuild, slice_tensors
from stages.reconstruct.branch_means import BranchMeans, Shifts
from stages.reconstruct.forward import Forward, Listener, Use, survey
from stages.reconstruct.least_squares import System, best_ridge
from stages.reconstruct.operators import LinearMap, read
from stages.reconstruct.patches import Sampling, joined, patches

MAX_BYTES = 4 << 30
BRANCH_IMAGES = 256  # that means are taken over; there is a run for every branch


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


class Moments:
    """All that it takes to reconstruct any candidate of one network.

    Args:
        model: the original, in eval mode.
        inputs: images (N, C, H, W), or a tuple of inputs.
        sampling: rows of each layer.
        max_bytes: half of it is for activations: of more images than fit, only the first are used.

    Attributes:
        layers: by the name of the weight, those whose inputs can be cut.
        left_alone: {weight: why it is not reconstructed although its inputs can be cut}.
        shifts: {branch: how means behind it move when it goes}, see `measure_branches`.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        inputs: Tensor | tuple[Any, ...],
        *,
        seed: int = 0,
        sampling: Sampling | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
        self.graph = graph
        self.tensors = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
        forward = survey(model, tuple(item[:2] for item in inputs))
        count = max(2, forward.affordable(max_bytes))
        inputs = tuple(item[:count] for item in inputs)
        self.left_alone, wanted = _cut_inputs(graph, forward)
        gather = _Gather(model, forward, wanted, sampling or Sampling(len(inputs[0]), seed))
        with torch.no_grad(), gather:
            model(*inputs)
        self.layers = gather.layers
        self.shifts: dict[str, Shifts] = {}

    def measure_branches(
        self, model: nn.Module, inputs: Tensor | tuple[Any, ...], images: int = BRANCH_IMAGES
    ) -> None:
        """Let means make up for branches that go, from now on: a run of the model for each."""
        inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
        forward = survey(model, tuple(item[:2] for item in inputs))
        some = tuple(item[: min(images, forward.affordable(MAX_BYTES))] for item in inputs)
        means = BranchMeans(model, some, forward)
        for name, branch in self.graph.removable.items():
            without = put_in_place(rebuild(model, {}, ()), self.graph.stand_ins([branch], {}))
            self.shifts[name] = means.shifts(without)

    @property
    def refitted(self) -> list[str]:
        """Canonical names of what `tensors_after` may change beyond the slices of the cut."""
        found = []
        for layer in self.layers.values():
            mean = layer.use.norm.mean if layer.use.norm is not None else ""
            found += [name for name in (layer.use.bias or mean,) if name]
        for shifts in self.shifts.values():
            found += shifts
        return list(dict.fromkeys(found))

    def tensors_after(self, keep: Keep) -> dict[str, Tensor]:
        """All tensors that the cut and its reconstruction change, by canonical name, at their size
        after the cut. Those of branches of which nothing is kept are not among them.
        """
        going = self.graph.dropped(keep)
        left = {name: t for name, t in self.tensors.items() if not _held(going, name)}
        changed = slice_tensors(self.tensors, self.graph, keep)
        changed = {name: tensor for name, tensor in changed.items() if name in left}
        removed = self.graph.removed_slices(keep)
        for name, layer in self.layers.items():
            out_dim = layer.op.out_dim
            if name not in left:
                continue
            if (gone := removed.get((name, 1 - out_dim))) is not None:
                self._reconstruct(layer, gone, removed.get((name, out_dim)), changed)
        for branch in going:
            for name, shift in self.shifts.get(branch.id, {}).items():
                if name in left:
                    stays = np.delete(np.arange(len(shift)), removed.get((name, 0), []))
                    own = shift[torch.from_numpy(stays).to(shift.device)]
                    changed[name] = changed.get(name, self.tensors[name]) + own
        return changed

    def _reconstruct(
        self,
        layer: LayerMoments,
        gone: NDArray[np.int64],
        outputs_gone: NDArray[np.int64] | None,
        changed: dict[str, Tensor],
    ) -> None:
        op, use = layer.op, layer.use
        small = replace(op, weight=changed[use.name])
        into = layer.mean.shape[-1] // op.taps
        matrix = op.matrix()
        if outputs_gone is not None:
            matrix = _rows_left(matrix, outputs_gone, per_group=op.kind == "transposed")
        gone = np.unique(gone % into)  # of a transposed weight, each group loses the same inputs
        stay = np.setdiff1d(np.arange(into), gone)
        new, fall = layer.solve(layer.unknowns(stay), layer.unknowns(gone), matrix)
        if not bool(torch.isfinite(new).all()):  # the sliced weights stay
            return
        changed[use.name] = small.weight_of(new)
        fall = fall.reshape(-1)
        if use.bias:
            changed[use.bias] = changed.get(use.bias, self.tensors[use.bias]) + fall
        elif use.norm is not None:
            mean = changed.get(use.norm.mean, self.tensors[use.norm.mean])
            # minus: a batch norm subtracts its mean
            changed[use.norm.mean] = mean - fall


def _held(going: Sequence[Branch], name: str) -> bool:
    return any(branch.holds(name) for branch in going)


class _Gather(Listener):
    """One run of the original that leaves the moments of the wanted layers."""

    def __init__(
        self, model: nn.Module, forward: Forward, wanted: set[str], sampling: Sampling
    ) -> None:
        super().__init__(model)
        self.forward, self.sampling = forward, sampling
        self.uses = {use.call: use for use in forward.uses if use.name in wanted}
        self.rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.layers: dict[str, LayerMoments] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        use, op = self.uses.get(self.number), read(func, args, kwargs)
        if use is not None and isinstance(op, LinearMap):
            self._note(use, op)
        return func(*args, **kwargs)

    def _note(self, use: Use, op: LinearMap) -> None:
        rows = patches(op, self.sampling.positions(use, len(op.input)))
        # `joined` wants pairs; nothing is fitted here
        self.rows.setdefault(use.name, []).append((rows, rows[..., :0]))
        if use.turn + 1 < self.forward.turns(use.name):
            return
        x, _ = joined(self.rows.pop(use.name), self.sampling)
        if bool(torch.isfinite(x).all()):
            held = self.sampling.held_out(x.shape[1])
            self.layers[use.name] = _moments(use, op, x, held)


def _moments(use: Use, op: LinearMap, x: Tensor, held: int) -> LayerMoments:
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


def _rows_left(matrix: Tensor, gone: NDArray[np.int64], *, per_group: bool) -> Tensor:
    """The matrix (groups, out, u) without outputs: counted over all groups, or within each."""
    groups, out, unknowns = matrix.shape
    alive = np.ones(out if per_group else groups * out, dtype=bool)
    alive[gone] = False
    stay = torch.from_numpy(np.flatnonzero(alive)).to(matrix.device)
    if per_group:
        return matrix[:, stay]
    return matrix.reshape(-1, unknowns)[stay].reshape(groups, -1, unknowns)


def _cut_inputs(graph: ChannelGraph, forward: Forward) -> tuple[dict[str, str], set[str]]:
    """Layers whose inputs can be cut: those that moments of the original cannot serve, and why;
    and the others.
    """
    into = {
        use.name: 0 if use.kind == "transposed" else 1
        for use in forward.uses
        if use.kind != "norm" and not use.depthwise
    }
    left_alone, wanted = {}, set()
    for group in graph.prunable:
        for name, dim, _ in group.members:
            if into.get(name) != dim:
                continue
            if group.exact and name not in forward.elsewhere:
                wanted.add(name)
            else:
                left_alone[name] = (
                    "something else uses its weight as well"
                    if group.exact
                    else "it stands behind a norm over the channels that are cut"
                )
    return left_alone, wanted - set(left_alone)  # one such group among several is enough

"""The independent form: moments of the original's own activations, taken once, sliced for every
candidate.

With x the inputs of a layer, k those that stay and r those that go, the change D that makes up for
W_r x_r by x_k solves (S_kk + λ) Dᵀ = S_kr W_rᵀ, where S is the covariance of x. Weaker than the
sequential form, as no layer knows of the errors of earlier ones, and a hundred times cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.surgery import Keep, named_tensors, removed_slices, slice_tensors
from stages.reconstruct.forward import Forward, Listener, Use, survey
from stages.reconstruct.least_squares import System
from stages.reconstruct.operators import LinearMap, read
from stages.reconstruct.patches import patches
from stages.reconstruct.sequential import Sampling, held_rows, joined

RIDGE = 1e-2


@dataclass(frozen=True)
class LayerMoments:
    """What one layer sees in the original.

    Attributes:
        square: covariance (groups, u, u) of its unknowns, or None. rows: (groups, n, u), centred,
        where that takes less memory. mean: (groups, u). ridge: as a multiple of the diagonal.
    """

    use: Use
    op: LinearMap
    square: Tensor | None
    rows: Tensor | None
    mean: Tensor
    ridge: float
    free_mean: bool

    def solve(self, stay: Tensor, gone: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Change (groups, out, kept) of the weights that stay, and of the output's mean.

        Args:
            stay, gone: unknowns. matrix: the original's weights (groups, out, u) of the outputs
            that stay.
        """
        lost = matrix[..., gone]
        if self.square is not None:
            block = self.square[:, stay]
            system = System(block[..., stay], block[..., gone] @ lost.mT)
        else:
            assert self.rows is not None
            system = System.of(self.rows[..., stay], self.rows[..., gone] @ lost.mT)
        step = system.solve(self.ridge).mT
        moved = (lost @ self.mean[..., gone, None] - step @ self.mean[..., stay, None])[..., 0]
        return step, moved


class _Gather(Listener):
    def __init__(self, model: nn.Module, forward: Forward, wanted: set[str], sampling: Sampling):
        super().__init__(model)
        self.uses = {use.call: use for use in forward.uses if use.name in wanted}
        self.last = {use.name: use.turn for use in forward.uses}
        self.sampling = sampling
        self.rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.layers: dict[str, LayerMoments] = {}

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        use, op = self.uses.get(self.number), read(func, args, kwargs)
        if use is not None and isinstance(op, LinearMap):
            positions = self.sampling.positions(use, op.input.shape[0])
            rows = patches(op, positions)
            self.rows.setdefault(use.name, []).append((rows, rows[..., :0]))
            if use.turn == self.last[use.name]:
                x, _ = joined(self.rows.pop(use.name), self.sampling.samples)
                self.layers[use.name] = _moments(use, op, x, held_rows(x.shape[1], self.sampling.samples))
        return func(*args, **kwargs)


def _moments(use: Use, op: LinearMap, x: Tensor, held: int) -> LayerMoments:
    free = bool(use.bias) or use.norm is not None
    mean = x.mean(1) if free else torch.zeros_like(x[:, 0])
    if free:
        x -= mean[:, None]
    n, unknowns = x.shape[1:]
    square = x.mT @ x / n if unknowns <= n else None
    bare = LinearMap(op.kind, op.input[:0], op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)
    return LayerMoments(use, bare, square, None if square is not None else x, mean, RIDGE, free)


class Moments:
    """Everything that reconstructing any candidate of one network takes."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, inputs: tuple[Any, ...], *, seed: int = 0, sampling: Sampling | None = None) -> None:
        self.graph = graph
        self.tensors = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
        forward = survey(model, tuple(item[:2] for item in inputs))
        self.forward = forward
        wanted = consumers(graph, forward)
        gather = _Gather(model, forward, wanted, sampling or Sampling(len(inputs[0]), seed))
        with torch.no_grad(), gather:
            model(*inputs)
        self.layers = gather.layers

    def tensors_after(self, keep: Keep) -> dict[str, Tensor]:
        """The tensors that the cut and its reconstruction change, by canonical name."""
        changed = slice_tensors(self.tensors, self.graph, keep)
        removed = removed_slices(self.graph, keep)
        for name, layer in self.layers.items():
            gone = removed.get((name, 1 - layer.op.out_dim))
            if gone is not None:
                self._reconstruct(layer, gone, removed.get((name, layer.op.out_dim)), changed)
        return changed

    def _reconstruct(self, layer: LayerMoments, gone, lost_outputs, changed) -> None:
        op, use = layer.op, layer.use
        taps, into = op.kernel_taps, layer.mean.shape[-1] // op.kernel_taps
        alive = np.ones(into, dtype=bool)
        alive[gone] = False
        index = torch.arange(taps)[:, None] * into
        stay = (index + torch.from_numpy(np.flatnonzero(alive))).flatten()
        away = (index + torch.from_numpy(np.flatnonzero(~alive))).flatten()
        matrix = op.matrix()
        if lost_outputs is not None:
            left = np.ones(matrix.shape[0] * matrix.shape[1], dtype=bool)
            left[lost_outputs] = False
            matrix = matrix.reshape(-1, matrix.shape[-1])[torch.from_numpy(left)].reshape(op.groups, -1, matrix.shape[-1])
        step, moved = layer.solve(stay, away, matrix)
        if not bool(torch.isfinite(step).all()):
            return
        new = matrix[..., stay] + step
        small = changed[use.name]
        shaped = LinearMap(op.kind, op.input, small, None, op.stride, op.padding, op.dilation, op.groups)
        changed[use.name] = shaped.weight_of(new)
        moved = moved.reshape(-1)
        if use.bias:
            changed[use.bias] = changed.get(use.bias, self.tensors[use.bias]) + moved
        elif use.norm is not None:
            mean = use.norm.mean
            changed[mean] = changed.get(mean, self.tensors[mean]) - moved


def consumers(graph: ChannelGraph, forward: Forward) -> set[str]:
    """Weights whose inputs some group may cut."""
    cut = {(name, dim) for group in graph.prunable for name, dim, _ in group.members}
    return {use.name for use in forward.uses if use.kind != "norm" and (use.name, 0 if use.kind == "transposed" else 1) in cut}

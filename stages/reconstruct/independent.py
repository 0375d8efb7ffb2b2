"""The independent form: moments of the original's own activations, taken once and sliced for every
candidate.

No layer knows of the errors of earlier ones, so this is weaker than the sequential form, and a
hundred times cheaper. Only where whole branches go, layers behind see what is left of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.channels.branch import Branch
from pipeline.channels.graph import ChannelGraph, Keep
from pipeline.channels.rebuild import named_tensors, slice_tensors
from stages.reconstruct.forward import Forward, Listener, Use, survey
from stages.reconstruct.layer_moments import NOTHING, LayerMoments, Refits, moments_of
from stages.reconstruct.operators import LinearMap, read
from stages.reconstruct.patches import Sampling, joined, patches

MAX_BYTES = 4 << 30


class Moments:
    """All that it takes to reconstruct any candidate of one network.

    Args:
        model: the original, in eval mode.
        inputs: images (N, C, H, W), or a tuple of inputs.
        sampling: rows of each layer.
        max_bytes: half of it is for activations: of more images than fit, only the first are used.
        branches: what layers behind branches that go become; None: what they are, but for the cut.

    Attributes:
        layers: by the name of the weight, those whose inputs can be cut.
        left_alone: {weight: why it is not reconstructed although its inputs can be cut}.
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
        branches: Refits | None = None,
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
        self.branches = branches

    @property
    def refitted(self) -> list[str]:
        """Canonical names of what `tensors_after` may change beyond the slices of the cut."""
        found = []
        for layer in self.layers.values():
            mean = layer.use.norm.mean if layer.use.norm is not None else ""
            found += [name for name in (layer.use.bias or mean,) if name]
        found += self.branches.names if self.branches else []
        return list(dict.fromkeys(found))

    def tensors_after(self, keep: Keep) -> dict[str, Tensor]:
        """All tensors that the cut and its reconstruction change, by canonical name, at their size
        after the cut. Those of branches of which nothing is kept are not among them.
        """
        going = self.graph.dropped(keep)
        behind = self.branches.without(going) if self.branches else NOTHING
        tensors = self.tensors | behind.tensors
        changed = behind.tensors | slice_tensors(tensors, self.graph, keep)
        changed = {name: own for name, own in changed.items() if not _held(going, name)}
        removed = self.graph.removed_slices(keep)
        for name, layer in (self.layers | behind.layers).items():
            out_dim = layer.op.out_dim
            if _held(going, name):
                continue
            if (gone := removed.get((name, 1 - out_dim))) is not None:
                matrix = layer.op.matrix(tensors[name])
                outputs_gone = removed.get((name, out_dim))
                if outputs_gone is not None:
                    per_group = layer.op.kind == "transposed"
                    matrix = _rows_left(matrix, outputs_gone, per_group=per_group)
                _reconstruct(layer, gone, matrix, tensors | changed, changed)
        return changed


def _reconstruct(
    layer: LayerMoments,
    gone: NDArray[np.int64],
    matrix: Tensor,
    now: Mapping[str, Tensor],
    changed: dict[str, Tensor],
) -> None:
    op, use = layer.op, layer.use
    into = layer.mean.shape[-1] // op.taps
    gone = np.unique(gone % into)  # of a transposed weight, each group loses the same inputs
    stay = np.setdiff1d(np.arange(into), gone)
    new, fall = layer.solve(layer.unknowns(stay), layer.unknowns(gone), matrix)
    if not bool(torch.isfinite(new).all()):  # the sliced weights stay
        return
    changed[use.name] = replace(op, weight=changed[use.name]).weight_of(new)
    fall = fall.reshape(-1)
    if use.bias:
        changed[use.bias] = now[use.bias] + fall
    elif use.norm is not None:
        # minus: a batch norm subtracts its mean
        changed[use.norm.mean] = now[use.norm.mean] - fall


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
            self.layers[use.name] = moments_of(use, op, x, held)


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

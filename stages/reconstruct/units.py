"""Which units are missed least once the others make up for them: optimal brain surgeon on moments.

With H = (S + λ)⁻¹ of a layer's inputs, taking unit u out, and letting the weights W of the others
make up for it, adds tr(W_u (H_uu)⁻¹ W_uᵀ) to the squared error of the layer's output (Hassibi &
Stork 1993; OSSCAR, arXiv 2403.12983). A unit owns inputs of every layer that reads its group, so
these are summed; then W and H follow, and the next unit goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.group import ChannelGroup
from stages.reconstruct.independent import Moments
from stages.reconstruct.layer_moments import LayerMoments

RIDGE = 0.1  # of the diagonal's mean: what others can do is not to be overrated
ROUNDS = 64  # a group loses its units in about so many steps
MOST = 8192  # unknowns of a layer: the inverse of more would be larger than 512 MiB in float64


def rank_units(moments: Moments, graph: ChannelGraph) -> dict[str, Tensor]:
    """Importance of the units of every prunable group: {group id: (size,)}, float64.

    The squared error, summed over the layers that read the group, after the unit and all less
    important ones are gone. Units of a group that no layer with moments reads are equally
    important: 0.
    """
    return {group.id: _importance(moments, group) for group in graph.prunable}


def _importance(moments: Moments, group: ChannelGroup) -> Tensor:
    readers = list(_readers(moments, group))
    scores = torch.zeros(group.size, dtype=torch.float64)
    alive = torch.ones(group.size, dtype=torch.bool)
    step, error = max(1, group.size // ROUNDS), 0.0
    while readers and bool(alive.any()):
        left = torch.nonzero(alive).flatten()
        costs = torch.stack([reader.costs(left) for reader in readers]).sum(0)
        going = costs.argsort(stable=True)[:step]  # of equals the first, on every machine
        for unit, cost in zip(left[going].tolist(), costs[going].tolist(), strict=True):
            error += max(cost, 0.0)  # round-off may make it negative
            scores[unit] = error
        for reader in readers:
            reader.remove(left[going])
        alive[left[going]] = False
    return scores


def _readers(moments: Moments, group: ChannelGroup) -> Iterator[_Reader]:
    for member in group.tables():
        layer = moments.layers.get(member.parameter)
        if layer is None or member.dim == layer.op.out_dim or layer.mean.shape[-1] > MOST:
            continue
        into = layer.mean.shape[-1] // layer.op.taps
        channels = torch.from_numpy(member.indices) % into  # a group of channels: each the same
        taps = torch.arange(layer.op.taps) * into
        own = (channels[:, None, :] + taps[:, None]).flatten(1).unique(dim=1)
        if len(own.unique()) == own.numel():  # what two units share goes with neither alone
            yield _Reader.of(layer, own)


@dataclass
class _Reader:
    """A layer that reads the group: inverse (groups, u, u), weights (groups, out, u), rotated among
    the outputs, and the unknowns (units, k) that each unit owns. What has gone is in neither.
    """

    inverse: Tensor
    weights: Tensor
    own: Tensor

    @classmethod
    def of(cls, layer: LayerMoments, own: Tensor) -> _Reader:
        square = layer.covariance().double()  # round-off adds up over all updates
        load = RIDGE * square.diagonal(dim1=-2, dim2=-1).mean(-1)
        square = square.clone()  # `double` of a float64 tensor is that tensor
        # a tiny bit more, since inputs that are all zero have no diagonal
        square.diagonal(dim1=-2, dim2=-1).add_(load[:, None] + torch.finfo(torch.float32).tiny)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(square))
        weights = layer.op.matrix().detach().double()
        if weights.shape[1] > weights.shape[2]:  # errors are lengths, which no rotation changes
            weights = torch.linalg.qr(weights, mode="r")[1]
        return cls(inverse, weights, own.to(square.device))

    def costs(self, units: Tensor) -> Tensor:
        """What removing each of the units would add to the error, alone: (n,) on the CPU."""
        own = self.own[units.to(self.own.device)]
        if own.shape[1] == 1:  # a number each, which is quicker to divide by than to solve
            only = own[:, 0]
            squares = self.weights[:, :, only].square().sum(1)
            return (squares / self.inverse[:, only, only]).sum(0).cpu()
        block = self.inverse[:, own[:, :, None], own[:, None, :]]
        weights = self.weights[:, :, own].permute(0, 2, 3, 1)
        return (torch.linalg.solve(block, weights) * weights).sum((0, 2, 3)).cpu()

    def remove(self, units: Tensor) -> None:
        """Take units out, and let the others make up for them."""
        own = self.own[units.to(self.own.device)].flatten()
        stays = torch.ones(self.inverse.shape[-1], dtype=torch.bool, device=own.device)
        stays[own] = False
        left = torch.nonzero(stays).flatten()
        rows = self.inverse[:, left]
        across = rows[:, :, own]
        gain = torch.linalg.solve(self.inverse[:, own][:, :, own], across.mT).mT
        self.weights = self.weights[:, :, left] - self.weights[:, :, own] @ gain.mT
        self.inverse = rows[:, :, left] - gain @ across.mT
        place = torch.zeros_like(stays, dtype=torch.long)
        place[left] = torch.arange(len(left), device=left.device)
        self.own = place[self.own]  # of units that have gone, anything
